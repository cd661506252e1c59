// A widget manager without a kernel: models come from the state stored in the page.
import * as base from "@jupyter-widgets/base";
import { ManagerBase } from "@jupyter-widgets/base-manager";
import * as bool from "@jupyter-widgets/controls/lib/widget_bool";
import * as box from "@jupyter-widgets/controls/lib/widget_box";
import * as button from "@jupyter-widgets/controls/lib/widget_button";
import * as description from "@jupyter-widgets/controls/lib/widget_description";
import * as float from "@jupyter-widgets/controls/lib/widget_float";
import * as int from "@jupyter-widgets/controls/lib/widget_int";
import * as link from "@jupyter-widgets/controls/lib/widget_link";
import * as selection from "@jupyter-widgets/controls/lib/widget_selection";
import * as string from "@jupyter-widgets/controls/lib/widget_string";
import { MessageLoop } from "@lumino/messaging";
import { Widget } from "@lumino/widgets";
import * as anywidget from "./afm.js";
import { spoken } from "./spoken.js";

const sliders = {
  FloatSliderView: float.FloatSliderView, FloatLogSliderView: float.FloatLogSliderView, FloatRangeSliderView: float.FloatRangeSliderView,
  IntSliderView: int.IntSliderView, IntRangeSliderView: int.IntRangeSliderView,
};
const MODULES = {
  "@jupyter-widgets/base": base,
  "@jupyter-widgets/controls": {
    ...bool, ...box, ...button, ...description, ...float, ...int, ...link, ...selection, ...string,
    ...Object.fromEntries(Object.entries(sliders).map(([name, View]) => [name, spoken(View)])),
  },
  anywidget,
};

export class StoredManager extends ManagerBase {
  async loadClass(name, module) {
    const found = MODULES[module]?.[name];
    if (!found) throw new Error(`This page has no ${name} of ${module}`);
    return found;
  }

  async _get_comm_info() {
    return {};
  }

  async _create_comm() {
    throw new Error("A page has no kernel");
  }

  /** Draw the model inside `element`; resolves when its view, and the views inside it, are in the page. */
  async show(id, element) {
    const view = await this.create_view(await this.get_model(id));
    MessageLoop.sendMessage(view.luminoWidget, Widget.Msg.BeforeAttach);
    element.append(view.el);
    MessageLoop.sendMessage(view.luminoWidget, Widget.Msg.AfterAttach);
    await Promise.all(view.children_views?.views ?? []);
  }
}
