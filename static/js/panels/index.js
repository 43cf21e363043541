/** The dock's panels, in the order of their tabs. */

/** @type {import('../app.js').PanelDefinition[]} */
export const PANELS = [];
