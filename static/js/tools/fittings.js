/**
 * What changes a host when it is dropped there: a stack, a technique, a generation of hardware assist, a switch, a scheduler,
 * page sharing, overcommitted memory. A row says what the thing is called and what becomes of the host, or why nothing does; carry.js asks it while
 * the thing is carried and does what it says at the drop. What goes with what comes from the engine (the schema). Pure.
 */

/**
 * @typedef {import('../app.js').App} App
 * @typedef {import('../protocol.js').Host} Host
 * `restack`: the host restarts with this, and its guests are asked about. `off`: it has it, and the drop takes it away.
 * @typedef {{no: string} | {restack: import('../chrome/restack.js').Wanted, off?: boolean}
 *           | {command: import('../protocol.js').Command, off?: boolean}} Change
 * @typedef {object} Fitting
 * @property {(id: string) => string} nameKey
 * @property {(id: string) => string} detailKey
 * @property {(app: App, host: Host, id: string) => Change} change
 */

/** @param {App} app @param {Host} host */
const already = (app, host) => ({ no: app.t('drop.same', { name: host.name }) });
/** A technique on a bare machine comes with a kernel that has a hypervisor. @param {Host} host */
const stackFor = (host) => (host.technique ? host.stack : 'kvm');

/** @param {App} app @param {Host} host @param {string} technique @returns {Change} */
function byTechnique(app, host, technique) {
  if (host.technique === technique) return { no: app.t('drop.same-stack', { name: host.name }) };
  const stack = stackFor(host);
  return possible(app, stack, technique) ?? { restack: { stack, technique } };
}

/** @param {App} app @param {string} stack @param {string} technique */
function possible(app, stack, technique) {
  if (app.store.schema.stacks[stack]?.techniques.includes(technique)) return null;
  return { no: app.t('error.technique-not-on-stack', { stack: app.t(`stack.${stack}`), technique: app.t(`technique.${technique}`) }) };
}

/** Hardware assist, if it was not, with the switches of that generation and what else is on. @param {App} app @param {Host} host @param {string} id @returns {Change} */
function byGeneration(app, host, id) {
  const { generations, switches } = app.store.schema;
  const stack = stackFor(host);
  const technique = 'hardware-assist';
  const kept = host.switches.filter((name) => !generations.flat().includes(name) && switches[name]?.techniques.includes(technique));
  const wanted = [...kept, ...generations[Number(id)] ?? []].sort();
  if (host.technique === technique && wanted.join() === [...host.switches].sort().join()) return already(app, host);
  return possible(app, stack, technique) ?? { restack: { stack, technique, switches: wanted } };
}

/** @param {App} app @param {Host} host @param {string} id @returns {Change} */
function bySwitch(app, host, id) {
  const row = app.store.schema.switches[id];
  if (!row?.stacks.includes(host.stack) || (host.technique !== null && !row.techniques.includes(host.technique))) {
    return { no: app.t('error.switch-without-effect', { switch: app.t(`switch.${id}`) }) };
  }
  const off = host.switches.includes(id);
  const others = host.switches.filter((name) => name !== id);
  return { restack: { stack: host.stack, technique: host.technique, switches: off ? others : [...others, id] }, off };
}

/**
 * Which guest of a host could not be there any more, neither brought along nor switched off, and why: a kernel is made for
 * paravirtualization or is not. @param {App} app @param {Host} host @param {import('../chrome/restack.js').Wanted} wanted
 */
export function unfit(app, host, wanted) {
  const technique = wanted.technique ?? app.store.schema.stacks[wanted.stack]?.techniques[0];
  const changed = technique === 'paravirtual';
  const guest = app.store.guestsOf(host.id).find((one) => {
    const image = app.store.image(one.image);
    return image && Boolean(image.paravirtual) !== changed;
  });
  return guest ? app.t('restack.unfit', { guest: guest.name, reason: app.t(changed ? 'error.needs-paravirtual-kernel' : 'error.paravirtual-kernel') }) : null;
}

/** @type {Record<'stack' | 'technique' | 'generation' | 'switch' | 'scheduler' | 'sharing' | 'overcommit', Fitting>} */
export const FITTINGS = {
  stack: {
    nameKey: (id) => `stack.${id}`, detailKey: (id) => `stack.${id}.detail`,
    change: (app, host, id) => (host.stack === id ? { no: app.t('drop.same-stack', { name: host.name }) } : { restack: { stack: id } }),
  },
  technique: { nameKey: (id) => `technique.${id}`, detailKey: (id) => `technique.${id}.detail`, change: byTechnique },
  generation: { nameKey: (id) => `control.generation.${id}`, detailKey: (id) => `control.generation.${id}.detail`, change: byGeneration },
  switch: { nameKey: (id) => `switch.${id}`, detailKey: (id) => `switch.${id}.detail`, change: bySwitch },
  scheduler: {
    nameKey: (id) => `scheduler.${id}`, detailKey: (id) => `scheduler.${id}.explained`,
    change: (app, host, id) => {
      if (!host.technique) return { no: app.t('error.host-without-scheduler', { host: host.name }) };
      if ((host.scheduler ?? app.store.schema.stacks[host.stack]?.scheduler) === id) return already(app, host);
      return { command: { type: 'host.scheduler', host: host.id, scheduler: id } };
    },
  },
  sharing: {
    nameKey: () => 'control.share-pages', detailKey: () => 'control.share-pages.detail',
    change: (app, host) => (host.technique
      ? { command: { type: 'host.sharing', host: host.id, share_pages: !host.share_pages }, off: host.share_pages }
      : { no: app.t('error.host-without-sharing', { host: host.name }) }),
  },
  overcommit: {
    nameKey: () => 'control.overcommit', detailKey: () => 'control.overcommit.detail',
    change: (app, host) => {
      if (!host.technique) return { no: app.t('error.host-without-overcommit', { host: host.name }) };
      if (host.technique === 'paravirtual') return { no: app.t('error.overcommit-names-frames', { host: host.name }) };
      return { command: { type: 'host.overcommit', host: host.id, overcommit: !host.overcommit }, off: host.overcommit };
    },
  },
};
