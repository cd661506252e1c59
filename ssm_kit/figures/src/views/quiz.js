// Quiz: one question, radio buttons, feedback for every option. Text only: nothing is parsed as HTML.
import { assign, button, make } from "../shared/controls.js";
import { addTheme } from "../shared/theme.js";

function render({ model, el }) {
  addTheme(el);
  const options = model.get("options"), name = `quiz-${Math.random().toString(36).slice(2)}`;
  const inputs = options.map((_, i) => make("input", { type: "radio", name, onchange: () => assign(model, { choice: i }) }));
  const feedback = make("p"), again = button("Clear", () => { assign(model, { choice: null }); inputs[0].focus(); });
  feedback.setAttribute("role", "status");
  el.append(make("div", { className: "ssmfig quiz" },
    make("fieldset", {}, make("legend", { textContent: model.get("question") }),
      ...options.map(([text], i) => make("label", {}, inputs[i], make("span", { textContent: text })))),
    feedback, again));
  const show = () => {
    const i = model.get("choice"), [, right, why] = options[i] ?? [];
    inputs.forEach((b, k) => { b.checked = k === i; });
    feedback.className = right === undefined ? "" : right ? "right" : "wrong";
    feedback.textContent = right === undefined ? "" : `${right ? "✓ Correct." : "✗ Not quite."} ${why}`;
    again.hidden = right === undefined;
  };
  model.on("change:choice", show);
  show();
  return () => model.off("change:choice", show);
}

export default { render };
