/**
 * Migrations as figures and words: what the inspector, the canvas and the announcer say of one all comes from its row, which
 * the engine wrote. Pure but for the words.
 */

/**
 * @typedef {[begin: number, end: number, pages: number, bytes: number, dirtied: number | null]} Round  times in virtual ns
 * @typedef {{guest: number, source: number, target: number, mode: string, link_gbit: number, phase: string, reason: string,
 *            begin: number, end: number, due: number, downtime: number, pages: number, bytes: number, fetched: number,
 *            round_count: number, rounds: Round[]}} Migration
 */

export const MODES = /** @type {const} */ (['pre-copy', 'post-copy', 'stop-and-copy']);
/** Gbit/s that the page offers for the link between hosts. */
export const LINKS = [1, 10, 25, 40, 100];
const PREFERENCE = 'migration.mode';

/** Does it go on? @param {Migration | undefined} row */
export function active(row) {
  return row?.phase === 'copying' || row?.phase === 'stopped' || row?.phase === 'pulling';
}

/** Can it still be called off? @param {Migration | undefined} row */
export function cancellable(row) {
  return active(row) && row?.phase !== 'pulling';
}

/** How this reader moves a running VM. @param {import('./preferences.js').Preferences} preferences */
export function chosenMode(preferences) {
  const mode = preferences.get(PREFERENCE, /** @type {string} */ (MODES[0]));
  return MODES.find((known) => known === mode) ?? MODES[0];
}

/** @param {import('./preferences.js').Preferences} preferences @param {string} mode */
export function chooseMode(preferences, mode) {
  preferences.set(PREFERENCE, mode);
}

/**
 * Bars for its rounds, 0..1 of the largest: what was sent, and what the guest stored to meanwhile.
 * @param {Migration} row
 */
export function bars(row) {
  const most = Math.max(1, ...row.rounds.map(([, , pages, , dirtied]) => Math.max(pages, dirtied ?? 0)));
  return row.rounds.map(([, , pages, , dirtied]) => ({ sent: pages / most, dirtied: (dirtied ?? 0) / most }));
}

/** Pages a virtual second that the guest stored to in the latest round of which that is known. @param {Migration} row */
export function dirtyRate(row) {
  const known = row.rounds.findLast(([, , , , dirtied]) => dirtied !== null);
  return known ? ((known[4] ?? 0) * 1e9) / Math.max(1, known[1] - known[0]) : null;
}

/** A size for people. @param {import('./i18n.js').I18n} i18n @param {number} bytes */
export function size(i18n, bytes) {
  return bytes < 1 << 20 ? `${i18n.n(Math.ceil(bytes / 1024))} KiB` : `${i18n.n(Math.round(bytes / (1 << 20)))} MiB`;
}

/** One line about where it stands. @param {import('./app.js').App} app @param {Migration} row */
export function statusLine(app, row) {
  const host = app.store.host(row.target)?.name ?? '';
  if (active(row) && !app.store.running) return app.t('migrate.waits', { host });
  return app.t(`migrate.phase.${row.phase}`, { host, round: row.round_count, reason: row.reason ? app.t(`migrate.reason.${row.reason}`) : '' });
}

/** What is said when it is over. @param {import('./app.js').App} app @param {Migration} row */
export function verdict(app, row) {
  const name = app.store.guest(row.guest)?.name ?? '';
  const host = app.store.host(row.target)?.name ?? '';
  if (row.phase === 'done') {
    return app.t('migrate.done', {
      name, host, downtime: app.i18n.duration(row.downtime), total: app.i18n.duration(row.end - row.begin),
      rounds: row.round_count, size: size(app.i18n, row.bytes),
    });
  }
  return app.t(row.phase === 'cancelled' ? 'migrate.cancelled' : 'migrate.failed', {
    name, host, reason: row.reason ? app.t(`migrate.reason.${row.reason}`) : '',
  });
}

/**
 * Move a guest to another host: a VM that runs is migrated, anything else is carried.
 * @param {import('./app.js').App} app @param {number} guest @param {number} host
 * @returns {Promise<boolean>} was it accepted?
 */
export async function moveGuest(app, guest, host) {
  const { store } = app;
  const home = store.host(store.guest(guest)?.host ?? 0);
  const params = { name: store.guest(guest)?.name ?? '', host: store.host(host)?.name ?? '' };
  const state = store.guests.get(guest)?.state;
  const migrates = home?.technique !== null && (state === 1 || state === 2);
  const command = migrates ? { type: 'guest.migrate', guest, host, mode: chosenMode(app.preferences) } : { type: 'guest.move', guest, host };
  if ((await app.attempt(command)) === undefined) return false;
  app.select({ kind: 'guest', id: guest });
  app.announce(app.t(migrates ? 'announce.guest-migrating' : 'announce.guest-moved', params));
  return true;
}
