// What a screen reader says about a slider: its label as the name, the number beside it as the value.
export const spoken = (View) => class extends View {
  createSlider() {
    super.createSlider();
    this.$slider.noUiSlider.on("update", () => this.speak()); // after noUiSlider's own listener, which rounds to one digit
  }

  updateSliderValue(...details) {
    super.updateSliderValue(...details);
    this.speak();
  }

  speak() {
    const text = this.readout.textContent.split("–"); // a range has one number for each handle
    this.$slider.querySelectorAll(".noUi-handle").forEach((handle, i) => {
      handle.setAttribute("aria-label", this.model.get("description") || "slider");
      handle.setAttribute("aria-valuetext", (text[i] ?? text[0]).trim());
    });
  }
};
