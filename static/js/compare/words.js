/** Names of what is compared, in the reader's language. */
import { configurationOf } from './model.js';

/** @typedef {import('../app.js').App} App */

/** @param {App} app @param {string} name */
export const workloadText = (app, name) => app.t(`workload.${name}`);

/** @param {App} app @param {string} text as `xen/hardware-assist+no-vmid` */
export function configurationText(app, text) {
  const { stack, technique, switches } = configurationOf(text);
  const base = technique === null ? app.t(`stack.${stack}`)
    : app.t('stack.with-technique', { stack: app.t(`stack.${stack}`), technique: app.t(`technique.${technique}`) });
  return [base, ...switches.map((name) => app.t(`switch.${name}`))].join(' + ');
}

/** A table of costs: its profile, and what was put in place of its figures. @param {App} app @param {string} text as `dall-x86-2016+exit:5` */
export function costsText(app, text) {
  const [profile, ...changes] = text.split('+');
  return [app.t(`costs.profile.${profile}`), ...changes].join(' + ');
}

/** A figure that may be small: three digits that count, or whole. @param {App} app @param {number} value */
export function figureText(app, value) {
  if (value >= 1000 || Number.isInteger(value)) return app.n(Math.round(value));
  return new Intl.NumberFormat(app.i18n.language, { maximumSignificantDigits: 3 }).format(value);
}
