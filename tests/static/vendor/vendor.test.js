/**
 * The vendored libraries load as ES modules under their relative paths and export what the page uses. Only what runs
 * without a DOM is exercised here; the Playwright tests exercise the rest.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import {
  EditorState, EditorView, StreamLanguage, basicSetup, lintGutter, setDiagnostics,
} from '../../../static/vendor/codemirror/codemirror.js';
import { riscv } from '../../../static/js/panels/riscv_mode.js';
import { io } from '../../../static/vendor/socket.io/socket.io.js';
import { FitAddon } from '../../../static/vendor/xterm/addon-fit.mjs';

test('CodeMirror holds a document, its parts agreeing on one EditorState', () => {
  const extensions = [basicSetup, lintGutter(), StreamLanguage.define(riscv)];
  const state = EditorState.create({ doc: '_start:\n  li a0, 1\n', extensions });
  assert.equal(state.doc.lines, 3);
  assert.equal(state.doc.line(2).text, '  li a0, 1');
  const spec = setDiagnostics(state, [{ from: 0, to: 6, severity: 'error', message: 'no such instruction' }]);
  assert.equal(state.update(spec).state.doc.toString(), state.doc.toString());
  assert.equal(typeof EditorView.theme, 'function');
});

test('socket.io speaks through the parser it is given', () => {
  class Encoder { encode() { return ['encoded']; } }
  class Decoder { on() {} }
  const socket = io('http://ringside.invalid', { autoConnect: false, parser: { Encoder, Decoder } });
  const { encoder } = /** @type {any} */ (socket.io);
  assert.deepEqual(encoder.encode({}), ['encoded']);
});

test('the fit addon is a terminal addon', () => {
  const addon = new FitAddon();
  assert.equal(typeof addon.activate, 'function');
  assert.equal(addon.proposeDimensions(), undefined);
});
