// Front end of anywidget figures: runs the module that a model carries in `_esm` (anywidget's "front-end module" contract:
// a default export, or a function returning it, with `initialize` and `render`). Two figures of one kind share one module.
import { DOMWidgetModel, DOMWidgetView } from "@jupyter-widgets/base";

const modules = new Map();

async function load(source) {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  URL.revokeObjectURL(url);
  return typeof widget === "function" ? widget() : widget;
}

function moduleOf(source) {
  if (!modules.has(source)) modules.set(source, load(source));
  return modules.get(source);
}

function addStyle(id, css) {
  if (!css || document.getElementById(id)) return;
  document.head.append(Object.assign(document.createElement("style"), { id, textContent: css }));
}

/** What a figure's code sees of its model; listeners added through it go when `owner` does. */
const proxy = (model, owner) => ({
  get: model.get.bind(model),
  set: model.set.bind(model),
  save_changes: model.save_changes.bind(model),
  send: model.send.bind(model),
  on: (name, callback) => model.on(name, callback, owner),
  off: (name, callback) => model.off(name, callback, owner),
  widget_manager: model.widget_manager,
});

class AnyModel extends DOMWidgetModel {
  initialize(...details) {
    super.initialize(...details);
    addStyle(`style-of-${this.get("_anywidget_id")}`, this.get("_css"));
    this.widget = this.begin();
  }

  async begin() {
    const widget = await moduleOf(this.get("_esm"));
    await widget.initialize?.({ model: proxy(this, this) });
    return widget;
  }
}

class AnyView extends DOMWidgetView {
  async render() {
    const widget = await this.model.widget;
    this.finish = await widget.render?.({ model: proxy(this.model, this), el: this.el });
  }

  remove() {
    this.finish?.();
    this.model.off(null, null, this);
    return super.remove();
  }
}

export { AnyModel, AnyView };
