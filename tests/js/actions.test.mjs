/** What takes long is done one after the other, as it was asked for, until it is cancelled, refused or at an end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Actions } from '../../static/js/actions.js';
import { App, ProblemError } from '../../static/js/app.js';
import { I18n } from '../../static/js/i18n.js';
import { Preferences } from '../../static/js/preferences.js';
import { Store } from '../../static/js/store.js';
import { keyframe } from './lab.mjs';

const KEY = { key: 's', code: 'KeyS', ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, repeat: false };

/** A paused lab that answers each command when it is told to. */
function lab() {
  /** @type {string[]} */
  const sent = [];
  /** @type {string[]} */
  const toasts = [];
  /** @type {((answer: any) => void)[]} */
  const open = [];
  const store = new Store();
  const app = new App({
    lab: 'demo', csrf: '', store, i18n: new I18n('en'), preferences: new Preferences(null),
    request: (_event, /** @type {any} */ { command }) => new Promise((resolve, reject) => {
      sent.push(command.type);
      if (command.type === 'lab.pause') resolve({ result: {} });
      else open.push((answer) => (answer instanceof ProblemError ? reject(answer) : resolve({ result: answer })));
    }),
    toast: ({ text }) => toasts.push(text), announce: () => {},
  });
  store.keyframe(keyframe(), 1, 0);
  app.setConnection('live');
  const actions = new Actions(app);
  const answer = async (/** @type {any} */ what) => {
    open.shift()?.(what);
    await new Promise((resolve) => { setTimeout(resolve, 0); });
  };
  return { app, actions, sent, toasts, answer };
}

test('steps that are asked for while one works come after it, in order', async () => {
  const { app, actions, sent, toasts, answer } = lab();
  for (const id of ['step', 'step', 'back']) actions.run(id);
  assert.deepEqual([sent, app.busy], [['lab.step'], 'step']);
  await answer({ reached: true });
  assert.deepEqual([sent, app.busy], [['lab.step', 'lab.step'], 'step']);
  await answer({ reached: true });
  assert.deepEqual([sent, app.busy], [['lab.step', 'lab.step', 'lab.step_back'], 'back']);
  await answer({});
  assert.deepEqual([sent.length, app.busy, toasts], [3, null, []]);
});

test('cancelling ends all of them and says nothing untrue', async () => {
  const { app, actions, sent, toasts, answer } = lab();
  for (const id of ['step', 'step', 'step', 'run']) actions.run(id);
  await answer({ reached: false });
  assert.deepEqual([sent, app.busy, toasts], [['lab.step', 'lab.pause'], null, []]);
  actions.run('step');
  await answer({ reached: false });
  assert.deepEqual([app.busy, toasts.length], [null, 1], 'the next one is not cancelled');
});

test('a step that came to its end while it was cancelled is the last one', async () => {
  const { app, actions, sent, answer } = lab();
  for (const id of ['step', 'step', 'run']) actions.run(id);
  await answer({ reached: true });
  assert.deepEqual([sent, app.busy], [['lab.step', 'lab.pause'], null]);
});

test('a refusal ends what waits', async () => {
  const { app, actions, sent, toasts, answer } = lab();
  for (const id of ['back', 'back']) actions.run(id);
  await answer(new ProblemError({ key: 'strange', message: 'No.', params: {} }));
  assert.deepEqual([sent, app.busy, toasts], [['lab.step_back'], null, ['No.']]);
});

test('a key that is held does not pile up work', async () => {
  const { actions, sent, answer } = lab();
  actions.key(KEY);
  for (let times = 0; times < 30; times++) actions.key({ ...KEY, repeat: true });
  await answer({ reached: true });
  assert.deepEqual(sent, ['lab.step']);
  actions.key({ ...KEY, repeat: true });
  assert.deepEqual(sent, ['lab.step', 'lab.step'], 'it goes on at the speed of the lab');
});
