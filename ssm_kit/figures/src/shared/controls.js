// Controls that live in the browser and write synced traits. All take (model, trait, ...) and return an element
// for fig.controls.append(...), except the stepper.
//
//   radios(model, trait, legend, [[value, label, cls?], ...])     menu(model, trait, label, [[value, label], ...])
//   toggle(model, trait, label, { other: value })                 a checkbox; it works while all these traits have these values
//   field(model, trait, label)                                    a line of text
//   button(text, onclick, title)                                  reset(model)                    always the last one
//   const steps = stepper(model, trait, last, options)            last() is the largest step; append steps.bar and
//                                                                 call steps.stop() where render's cleanup runs
//   assign(model, { trait: value, ... })                          write traits from any other handler
//   make(tag, properties, ...children)                            an element
const make = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};
const assign = (model, values) => { for (const [k, v] of Object.entries(values)) model.set(k, v); model.save_changes(); };

/** Run show now and whenever the trait changes. */
const follow = (model, trait, show) => { show(); model.on(`change:${trait}`, show); };

export function button(text, onclick, title = text) {
  const b = make("button", { type: "button", textContent: text, title, onclick });
  if (title !== text) b.setAttribute("aria-label", title);
  return b;
}

/** A radio group for one trait. */
export function radios(model, trait, legend, options) {
  const name = `${trait}-${Math.random().toString(36).slice(2)}`; // unique on the page
  const inputs = options.map(([value]) => make("input", { type: "radio", name, value, onchange: () => assign(model, { [trait]: value }) }));
  const group = make("fieldset", { className: options.length > 3 ? "choice long" : "choice" }, make("legend", { textContent: legend }),
    ...options.map(([, text, cls], i) => make("label", { className: cls ?? "" }, inputs[i], make("span", { textContent: text }))));
  follow(model, trait, () => { for (const i of inputs) i.checked = i.value === model.get(trait); });
  return group;
}

const labelled = (label, node) => make("label", { className: "field" }, make("span", { textContent: label }), node);

/** A menu for one trait. */
export function menu(model, trait, label, options) {
  const select = make("select", { onchange: () => assign(model, { [trait]: select.value }) },
    ...options.map(([value, text]) => make("option", { value, textContent: text })));
  follow(model, trait, () => { select.value = model.get(trait); });
  return labelled(label, select);
}

/** A checkbox for one trait. Where the traits in `needs` have other values it is off, but can be read and reached. */
export function toggle(model, trait, label, needs = {}) {
  const works = () => Object.entries(needs).every(([name, value]) => model.get(name) === value);
  const box = make("input", { type: "checkbox", onchange: () => { if (works()) assign(model, { [trait]: box.checked }); else box.checked = false; } });
  const show = () => { box.checked = works() && model.get(trait); box.setAttribute("aria-disabled", !works()); };
  for (const name of [trait, ...Object.keys(needs)]) follow(model, name, show);
  return make("label", { className: "toggle" }, box, make("span", { textContent: label }));
}

/** A line of text for one trait. Keys stay inside: notebooks and pages have shortcuts of their own. */
export function field(model, trait, label) {
  const input = make("input", { type: "text", spellcheck: false, oninput: () => assign(model, { [trait]: input.value }), onkeydown: (e) => e.stopPropagation() });
  follow(model, trait, () => { if (input.value !== model.get(trait)) input.value = model.get(trait); });
  return labelled(label, input);
}

/** Back to the values that the author gave (the trait `_initial`, set by Python); a figure's stepper stops playing. */
export const reset = (model, steps) => button("Reset", () => { steps?.stop(); assign(model, model.get("_initial")); }, "Reset the figure to its starting values");

/**
 * First, back, play, forward over 0 ... last for one integer trait; arrow keys, Home and End work on the whole group.
 * `depends` names the traits that last() reads; `interval` is in ms, and Play goes from k to `next(k)`.
 * Readers who asked their system for less motion get a button to the last step where others get Play.
 */
export function stepper(model, trait, last, { interval = 700, depends = [], next: after = (k) => k + 1 } = {}) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let timer = 0;
  const go = (k) => assign(model, { [trait]: Math.min(Math.max(k, 0), last()) });
  const now = () => model.get(trait);
  const stop = () => { clearInterval(timer); timer = 0; show(); };
  const play = () => {
    if (calm) return go(last());
    if (timer) return stop();
    if (now() >= last()) go(0);
    timer = setInterval(() => { if (now() >= last()) stop(); else go(after(now())); }, interval);
    show();
  };
  const first = button("|◀", () => { stop(); go(0); }, "Back to the start"), back = button("◀", () => { stop(); go(now() - 1); }, "One step back");
  const run = button("", play), next = button("▶", () => { stop(); go(now() + 1); }, "One step forward"), count = make("span", { className: "count" });
  const bar = make("div", { className: "stepper" }, first, back, run, next, count);
  bar.setAttribute("role", "toolbar");
  bar.setAttribute("aria-label", "Steps");
  bar.addEventListener("keydown", (e) => {
    const k = { ArrowRight: now() + 1, ArrowLeft: now() - 1, Home: 0, End: last() }[e.key];
    if (k === undefined) return;
    e.preventDefault(); e.stopPropagation(); // JupyterLab and the book use the arrow keys too
    stop(); go(k);
  });
  function show() {
    run.textContent = calm ? "To the end" : timer ? "Pause" : "Play";
    count.textContent = `step ${now()} of ${last()}`;
    for (const [b, off] of [[first, now() <= 0], [back, now() <= 0], [next, now() >= last()]]) b.setAttribute("aria-disabled", off);
  }
  for (const name of [trait, ...depends]) follow(model, name, show);
  return { bar, stop };
}

export { make, assign };
