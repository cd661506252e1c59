// Quiz: one question, radio buttons, feedback for every option. Text only: nothing is parsed as HTML.
import { assign, button, make } from "../shared/controls.js";
import { addTheme } from "../shared/theme.js";

const verdict = ([, right, why]) => `${right ? "✓ Correct." : "✗ Not quite."} ${why}`;

function render({ model, el }) {
  addTheme(el);
  const options = model.get("options"), name = `quiz-${Math.random().toString(36).slice(2)}`; // unique on the page
  const inputs = options.map((_, i) => make("input", { type: "radio", name, onchange: () => assign(model, { choice: i }) }));
  const live = make("p", { role: "status" }), again = button("Clear", () => { assign(model, { choice: null }); inputs[0].focus(); });
  // Every feedback lies unseen in the same grid cell, so that the tallest keeps its room from the start.
  const ghosts = options.map((option) => make("p", { className: "ghost", ariaHidden: "true", textContent: verdict(option) }));
  el.append(make("div", { className: "ssmfig quiz" },
    make("fieldset", {}, make("legend", { textContent: model.get("question") }),
      ...options.map(([text], i) => make("label", {}, inputs[i], make("span", { textContent: text })))),
    make("div", { className: "answer" }, make("div", { className: "feedback" }, ...ghosts, live), again)));
  const show = () => {
    const i = model.get("choice"), chosen = options[i];
    inputs.forEach((input, k) => { input.checked = k === i; });
    live.className = chosen ? (chosen[1] ? "right" : "wrong") : "";
    live.textContent = chosen ? verdict(chosen) : "";
    again.style.visibility = chosen ? "" : "hidden";
  };
  model.on("change:choice", show);
  show();
}

export default { render };
