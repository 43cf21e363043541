/**
 * The dialog that adds an operating system to this server: Debian, fetched with its progress in sight, or files of one's own.
 * The work is the server's, one for everybody; the dialog may be closed and opened again while it goes on.
 */
import { h, setText } from '../dom.js';
import { ask } from '../http.js';
import { dialog } from './dialogs.js';

/** @typedef {import('../app.js').App} App */
/** @typedef {import('../protocol.js').Fetch} Fetch */

const MIB = 1 << 20;
const DEFAULT_MEMORY_MIB = 256;

/** @param {App} app */
export function systemsDialog(app) {
  const debian = debianPart(app);
  const element = dialog(app, app.t('system.title'), debian.section, filesPart(app, () => element.close()));
  element.classList.add('systems');
  element.addEventListener('close', debian.stop);
}

/** @param {App} app @returns {{section: HTMLElement, stop: () => void}} */
function debianPart(app) {
  const bar = h('progress', { max: 1, 'aria-labelledby': 'system-stage' });
  const stage = h('p.stage', { id: 'system-stage', role: 'status' });
  const refusal = h('p.refusal', { role: 'alert' });
  const start = h('button.primary', { type: 'button', id: 'fetch-debian', onclick: () => void change('POST') }, app.t('system.fetch'));
  const cancel = h('button', { type: 'button', id: 'cancel-fetch', onclick: () => void change('DELETE') }, app.t('dialog.cancel'));

  /** @type {Fetch | null} */
  let latest = null;
  /** @param {Fetch} state */
  const show = (state) => {
    latest = state;
    const there = app.store.document?.images.find((image) => image.kind === 'linux' && image.name === 'debian');
    bar.hidden = cancel.hidden = !state.running;
    start.hidden = state.running;
    setText(start, app.t(there ? 'system.fetch-again' : 'system.fetch'));
    if (state.running && state.total > 0) bar.value = state.done / state.total;
    else bar.removeAttribute('value');
    const amounts = { done: Math.round(state.done / MIB), total: Math.round(state.total / MIB) };
    setText(stage, state.running || state.stage === 'done' ? app.t(`system.stage.${state.stage}`, amounts) : there?.title ?? '');
    setText(refusal, state.problem ? app.problemText(state.problem) : '');
  };
  /** @param {'GET' | 'POST' | 'DELETE'} method */
  const change = async (method) => {
    try {
      show((await ask(app, '/images/debian', method)).fetch);
    } catch (error) {
      setText(refusal, app.problemText(error));
    }
  };
  void change('GET');
  const section = h('section.system', null, h('h3', null, 'Debian Linux'), h('p', null, app.t('system.debian')),
    bar, stage, refusal, h('div.buttons', null, cancel, start));
  const stops = [app.on('fetch', show), app.store.on('document', () => { if (latest) show(latest); })];
  return { section, stop: () => stops.forEach((stop) => stop()) };
}

/** @param {App} app @param {() => void} close */
function filesPart(app, close) {
  const refusal = h('p.refusal', { role: 'alert' });
  const add = h('button.primary', null, app.t('system.add'));
  /** @param {string} name @param {string} label @param {object} properties */
  const field = (name, label, properties) => {
    const input = h('input', { name, id: `system-${name}`, autocomplete: 'off', ...properties });
    return h('div.field', null, h('label', { for: input.id }, label), input);
  };
  const form = h('form', {
    onsubmit: async (/** @type {Event} */ event) => {
      event.preventDefault();
      setText(refusal, '');
      add.disabled = true;
      try {
        const { name } = await ask(app, '/images', 'POST', new FormData(form));
        app.toast({ text: app.t('toast.uploaded', { name }) });
        close();
      } catch (error) {
        setText(refusal, app.problemText(error));
      }
      add.disabled = false;
    },
  },
  field('name', app.t('system.name'), { type: 'text', required: true, maxlength: 40, pattern: '[a-z0-9][a-z0-9._\\-]*' }),
  field('kernel', app.t('system.kernel'), { type: 'file', required: true }),
  field('initrd', app.t('system.initrd'), { type: 'file' }),
  field('arguments', app.t('system.arguments'), { type: 'text', maxlength: 512, value: 'console=ttyS0 earlycon=sbi' }),
  field('memory_mib', app.t('system.memory'), { type: 'number', min: 4, max: 512, value: DEFAULT_MEMORY_MIB }),
  refusal, h('div.buttons', null, add));
  return h('details.system', null, h('summary', null, app.t('system.files')), form);
}
