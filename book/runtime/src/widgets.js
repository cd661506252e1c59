// Entry: every <script type="…widget-view+json"> becomes the live widget it names. Deferred, so the page is parsed by now.
import { StoredManager } from "./manager.js";

const STATE = 'script[type="application/vnd.jupyter.widget-state+json"]';
const VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]';

function fail(stage, reason) {
  const note = Object.assign(document.createElement("p"), { className: "widget-missing", textContent: `This figure cannot be shown: ${reason}.` });
  note.setAttribute("role", "alert");
  stage.append(note);
}

async function revive() {
  const manager = new StoredManager();
  for (const state of document.querySelectorAll(STATE)) manager.set_state(JSON.parse(state.textContent));
  await null; // set_state has registered every model one microtask later
  for (const view of document.querySelectorAll(VIEW)) {
    const id = JSON.parse(view.textContent).model_id, slot = view.closest(".widget-slot"), stage = slot.querySelector(".widget-stage");
    if (!manager.has_model(id)) {
      fail(stage, "its stored state is missing from the page");
      continue;
    }
    await manager.show(id, stage).catch((error) => { fail(stage, error.message); throw error; });
    slot.dataset.alive = performance.now().toFixed(0); // the browser tests wait for this mark
  }
  document.documentElement.dataset.widgets = "alive";
}

revive();
