// The three classes of @lumino/widgets that Jupyter's views use. The package's single built file drags in docks, menus
// and tables (100 KB); its sources can be taken one by one.
export { Widget } from "../node_modules/@lumino/widgets/src/widget";
export { Panel } from "../node_modules/@lumino/widgets/src/panel";
export { PanelLayout } from "../node_modules/@lumino/widgets/src/panellayout";
