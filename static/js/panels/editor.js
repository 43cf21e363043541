/**
 * The assembly editor: write a guest, assemble it, run it on a host. Errors of the assembler are shown at their line and
 * column. Text that was not yet assembled is kept in the browser and offered again.
 * @typedef {import('../app.js').App} App
 */
import {
  basicSetup, classHighlighter, EditorState, EditorView, indentWithTab, keymap, lintGutter, Prec, setDiagnostics, StreamLanguage,
  syntaxHighlighting,
} from '../../vendor/codemirror/codemirror.js';
import { h, setText } from '../dom.js';
import { button, choice } from './parts.js';
import { riscv } from './riscv_mode.js';

const DRAFT = 'editor.draft';
const MOST_BYTES = 256 << 10;
const EXAMPLE = 'hello';
/** The server's rule for names (engine/commands.py, Name). */
const NAME = /^[\p{L}\p{N}_][\p{L}\p{N}_ .-]{0,39}$/u;

/** @type {WeakSet<App>} */
const opened = new WeakSet();

/**
 * Open the editor. With `source` that text is edited, else the kept draft, else the example.
 * @param {App} app
 * @param {{source?: string, name?: string}} [options]
 */
export function openEditor(app, { source, name } = {}) {
  if (opened.has(app)) return;
  opened.add(app);
  const example = () => app.store.document?.images.find((image) => image.name === EXAMPLE && image.source !== null)?.source ?? '';
  const draft = app.preferences.get(DRAFT, '');
  const first = source ?? (draft || example());
  const titleId = 'editor-title';

  const nameBox = h('input', { type: 'text', maxlength: '40', value: name ?? 'my-guest', 'aria-label': app.t('editor.name'), spellcheck: 'false' });
  const host = choice(app.t('editor.host'), () => setText(run, words()));
  const hosts = app.store.document?.hosts ?? [];
  const preferred = app.selection?.kind === 'host' ? app.selection.id : app.guest !== null ? app.store.guest(app.guest)?.host : hosts[0]?.id;
  host.set([...hosts.map((each) => /** @type {[string, string]} */ ([String(each.id), each.name])), ['', app.t('editor.host.only')]], String(preferred ?? ''));
  const words = () => app.t(host.select.value === '' ? 'editor.assemble' : 'editor.run');
  const run = button(words(), () => void assemble(), { class: 'primary' });
  const message = h('p.editor-message', { role: 'status' });
  const goTo = button(app.t('editor.goto'), () => reveal(), { hidden: true });
  let sure = false;
  const exampleButton = button(app.t('editor.example'), () => {
    const text = view.state.doc.toString();
    if (!sure && text.trim() !== '' && text !== example()) {
      sure = true;
      say(app.t('editor.example.confirm'));
      return;
    }
    sure = false;
    view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: example() } });
    say(app.t('editor.ready'));
    view.focus();
  });
  const place = h('div.editor-place');
  const dialog = h('dialog.editor', { 'aria-labelledby': titleId },
    h('header', {}, h('h2', { id: titleId }, app.t('editor.title')),
      button('×', () => dialog.close(), { class: 'quiet square', 'aria-label': app.t('panel.close') })),
    h('div.editor-bar', {}, h('label.panel-choice', {}, h('span', {}, app.t('editor.name')), nameBox), host.element, exampleButton, h('span.panel-gap'), run),
    place, h('footer', {}, message, goTo));
  document.body.append(dialog);

  /** @type {{from: number, to: number} | null} */
  let fault = null;

  const view = new EditorView({
    parent: place,
    state: EditorState.create({
      doc: first,
      extensions: [
        Prec.highest(keymap.of([{ key: 'Mod-Enter', run: () => { void assemble(); return true; } }])),
        basicSetup, keymap.of([indentWithTab]), StreamLanguage.define(riscv), syntaxHighlighting(classHighlighter), lintGutter(),
        EditorView.contentAttributes.of({ 'aria-label': app.t('editor.label') }),
        EditorView.updateListener.of((update) => {
          if (!update.docChanged) return;
          sure = false;
          app.preferences.set(DRAFT, update.state.doc.toString());
        }),
      ],
    }),
  });

  /** @param {string} text @param {boolean} [bad] */
  function say(text, bad = false) {
    setText(message, text);
    message.classList.toggle('problem', bad);
    goTo.hidden = !bad || fault === null;
  }

  function reveal() {
    if (!fault) return;
    view.dispatch({ selection: { anchor: fault.from, head: fault.to }, scrollIntoView: true });
    view.focus();
  }

  /** Mark where the assembler stopped. @param {{params?: Record<string, unknown>}} error @param {string} text */
  function markFault(error, text) {
    const line = Number(error.params?.line ?? 0);
    const column = Number(error.params?.column ?? 1);
    if (!(line >= 1)) return text;
    const { doc } = view.state;
    const row = doc.line(Math.min(line, doc.lines));
    const from = Math.min(row.from + Math.max(0, column - 1), row.to);
    const word = /^[\w.%$()-]+/.exec(doc.sliceString(from, row.to))?.[0].length ?? 1;
    fault = { from, to: Math.min(row.to, from + word) };
    view.dispatch(setDiagnostics(view.state, [{ ...fault, severity: 'error', message: text }]));
    reveal();
    return app.t('editor.problem', { line, column, message: text });
  }

  async function assemble() {
    const source = view.state.doc.toString();
    const wanted = nameBox.value.trim();
    fault = null;
    view.dispatch(setDiagnostics(view.state, []));
    const bytes = new TextEncoder().encode(source).length;
    nameBox.setAttribute('aria-invalid', String(!NAME.test(wanted)));
    if (!NAME.test(wanted)) {
      say(app.t('error.bad-name'), true);
      nameBox.focus();
      return;
    }
    if (bytes > MOST_BYTES) {
      say(app.t('editor.large', { size: Math.ceil(bytes / 1024) }), true);
      return;
    }
    run.disabled = true;
    say(app.t('editor.busy'));
    try {
      const { image } = await app.send({ type: 'image.assemble', name: wanted, source });
      const target = Number(host.select.value);
      if (!target) {
        say(app.t('editor.done', { name: wanted }));
        return;
      }
      const { guest } = await app.send({ type: 'guest.create', host: target, image });
      app.preferences.set(DRAFT, '');
      app.select({ kind: 'guest', id: guest });
      app.toast({ text: app.t('editor.started', { name: app.store.guest(guest)?.name ?? wanted, host: app.store.host(target)?.name ?? '' }) });
      app.openPanel('console');
      dialog.close();
    } catch (error) {
      const text = app.problemText(error);
      say(markFault(/** @type {{params?: Record<string, unknown>}} */ (error), text), true);
    } finally {
      run.disabled = false;
    }
  }

  dialog.addEventListener('close', () => {
    view.destroy();
    dialog.remove();
    opened.delete(app);
  });
  dialog.addEventListener('keydown', (event) => event.stopPropagation());
  dialog.showModal();
  say(source === undefined && draft ? app.t('editor.draft') : app.t('editor.ready'));
  view.focus();
}
