/**
 * The Memory panel: bytes of a guest at a virtual or physical address, and how that address is translated: the guest's own
 * Sv39 walk beside what the hart really does: the walk over the shadow tables, or under hardware assist the second stage of
 * each of the guest's references. Every memory reference is numbered and counted.
 * @typedef {import('../app.js').App} App
 * @typedef {import('./format.js').Word} Word
 * @typedef {import('./walk.js').Step} Step
 * @typedef {{gva: Word, guest: Step[], gpa: Word | null, shadow: Step[], second: Step[][], hpa: Word | null, references: {guest: number, shadow: number, second: number},
 *   walks: {count: number, references: number}, tlb: {load: boolean, store: boolean, fetch: boolean} | null}} Walk
 */
import { h, setAttribute, setText } from '../dom.js';
import { hex, hexWord, parseAddress, word } from './format.js';
import { hexdump, moved, ROW_BYTES, rowStart, sv39 } from './hexdump.js';
import { takeWanted } from './links.js';
import { button, guestPicker, stateLine, Undoing, vcpuPicker } from './parts.js';
import { poller } from './poller.js';
import { layersOf } from '../stacks.js';
import { entryKind, missCosts, walkOrder, whyUnmapped } from './walk.js';

const EVERY_MS = 250;
const ROW_PX = 20;
const MOST_ROWS = 64;
const FIRST_ADDRESS = 0x80200000n;

/** @param {HTMLElement} root @param {App} app @returns {import('../app.js').Panel} */
export function mountMemory(root, app) {
  const undo = new Undoing();
  let address = FIRST_ADDRESS;
  let top = rowStart(address);
  let physical = false;
  let vcpu = 0;
  let asked = '';
  let shown = true;
  let placed = false;

  const picker = guestPicker(app);
  const vcpus = vcpuPicker(app, (chosen) => {
    vcpu = chosen;
    ask();
  });
  const box = h('input.memory-address', { type: 'text', maxlength: 255, spellcheck: 'false', autocomplete: 'off', 'aria-label': app.t('memory.address'), title: app.t('memory.address.hint'),
    'aria-describedby': 'memory-problem' });
  const problem = h('span.problem', { id: 'memory-problem', role: 'status' });
  const form = h('form.memory-form', { onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); void go(); } }, h('span.dim', { 'aria-hidden': 'true' }, app.t('memory.address')), box,
    h('button', { type: 'submit' }, app.t('memory.go')));
  const kinds = h('span.segments', { role: 'group', 'aria-label': app.t('memory.title') }, ...[false, true].map((each) => button(
    app.t(each ? 'memory.physical' : 'memory.virtual'), () => { physical = each; ask(); }, { dataset: { physical: String(each) } },
  )));
  const bar = h('div.panel-bar', {}, picker.element, vcpus.element, form, kinds,
    button('↑', () => page(-1), { 'aria-label': app.t('memory.up'), title: app.t('memory.up'), class: 'square' }),
    button('↓', () => page(1), { 'aria-label': app.t('memory.down'), title: app.t('memory.down'), class: 'square' }),
    problem, h('span.panel-gap'), h('span.panel-hint', {}, app.t('memory.unmapped')));
  const state = stateLine(app);
  const dump = h('div.memory-dump', { role: 'table', tabindex: '0', 'aria-label': app.t('memory.hex') });
  const walk = h('div.memory-walk', { role: 'region', tabindex: '0' });
  const content = h('div.memory-content', {}, dump, walk);
  root.append(h('div.dock-panel.memory', {}, bar, state.element, content));

  const shownRows = () => Math.max(4, Math.min(MOST_ROWS, Math.floor((dump.clientHeight - 4) / ROW_PX)));

  /** @param {bigint} where */
  function goTo(where) {
    address = word(where);
    top = rowStart(address);
    placed = true;
    box.value = hex(address);
    setText(problem, '');
    setAttribute(box, 'aria-invalid', null);
    ask();
  }

  /** @param {number} pages */
  function page(pages) {
    const rows = shownRows();
    top = moved(top, pages * rows, rows);
    address = top;
    box.value = hex(address);
    ask();
  }

  /** Read the address box: a number, a register, or a symbol with an offset. */
  async function go() {
    const text = box.value.trim();
    const number = parseAddress(text);
    const { guest } = app;
    if (guest === null) return;
    if (number !== null) {
      goTo(number);
      return;
    }
    try {
      const found = await resolve(guest, text);
      if (found !== null) {
        goTo(found);
        return;
      }
      setText(problem, app.t('memory.unknown', { text: text.length > 40 ? `${text.slice(0, 40)}…` : text }));
    } catch (error) {
      setText(problem, app.problemText(error));
    }
    setAttribute(box, 'aria-invalid', 'true');
  }

  /** @param {number} guest @param {string} text @returns {Promise<bigint | null>} */
  async function resolve(guest, text) {
    const [, name, offset] = /^([^+\s]+)\s*(?:\+\s*(\S+))?$/.exec(text) ?? [];
    const plus = offset === undefined ? 0n : parseAddress(offset);
    if (!name || plus === null) return null;
    const index = name === 'pc' ? -1 : (app.store.schema.registers ?? []).indexOf(name);
    if (name === 'pc' || index >= 0) {
      const registers = await app.query({ type: 'registers', guest, vcpu });
      return word(word(index < 0 ? registers.pc : registers.x[index]) + plus);
    }
    const { address: found } = await app.query({ type: 'symbols', guest, name });
    return found === null || found === undefined ? null : word(word(found) + plus);
  }

  /** @param {import('./hexdump.js').Row[]} rows @param {boolean} everything some byte is mapped */
  function showDump(rows, everything) {
    dump.classList.toggle('unmapped', !everything);
    setAttribute(dump, 'aria-label', app.t('memory.bytes', { address: hex(top) }));
    dump.replaceChildren(...rows.map((row) => h('div.memory-row', { role: 'row' },
      h('span', { role: 'rowheader' }, h('button.value-link.memory-at', { type: 'button', onclick: () => goTo(row.address) }, hexWord(row.address))),
      h('span.memory-bytes', { role: 'cell' }, ...row.hex.map((byte, index) => h(
        row.address + BigInt(index) === address ? 'mark' : 'span', { class: byte === '--' ? 'none' : byte === '00' ? 'zero' : null }, byte,
      ))),
      h('span.memory-ascii', { role: 'cell' }, row.ascii))));
  }

  /** @param {string} flags */
  const flagWords = (flags) => [...new Set(flags.toLowerCase().replace(/[^vrwxugad]/g, ''))].map((flag) => app.t(`memory.flag.${flag}`)).join(', ');

  /** @param {Step[]} steps @param {(index: number) => number} numbered the number of each reference, in the order of the walk */
  const stepList = (steps, numbered) => h('ol.walk-steps', {}, ...steps.map((step, index) => h('li', {
    class: step.leaf ? 'leaf' : null,
    title: app.t('memory.walk.step', { number: numbered(index), level: step.level, index: step.index, table: hex(step.table) }),
  },
  h('span.walk-number', {}, String(numbered(index))),
  h('span.walk-place', {}, app.t('memory.walk.level', { level: step.level }), h('span.dim', {}, ` · ${app.t('memory.walk.entry', { index: step.index })}`)),
  h('span.walk-kind', {}, app.t(`memory.walk.${entryKind(step)}`)),
  h('code.walk-pte', {}, h('span.dim', {}, `${hex(step.address)}: `), hex(step.pte)),
  h('span.walk-flags', { title: flagWords(step.flags) }, step.flags, h('span.visually-hidden', {}, ` ${flagWords(step.flags)}`)))));

  /** @param {string} title @param {Word | null} value @param {string} [group] */
  const addressBox = (title, value, group) => h('div.walk-address', { 'data-group': group ?? null }, h('span', {}, title),
    h('code', {}, value === null ? app.t('memory.walk.unmapped') : hexWord(value)));

  /**
   * The second stage of each of the guest's references and of the page in the end.
   * @param {Walk} now @param {ReturnType<typeof walkOrder>} order @param {(count: number) => HTMLElement} references
   */
  const secondStage = (now, order, references) => [
    h('h3', {}, app.t('memory.walk.second'), ' ', references(now.references.second)),
    ...now.second.length > 0 ? now.second.flatMap((stage, index) => [
      h('h4', {}, index < now.guest.length ? app.t('memory.walk.second.table', { number: order.guest[index] }) : app.t('memory.walk.second.page')),
      stepList(stage, (step) => order.second[index] + step)]) : [h('p.dim', {}, app.t('memory.walk.nosecond'))],
  ];

  /**
   * What a TLB miss costs here and would cost otherwise, and the misses that there were.
   * @param {Walk} now @param {'native' | 'shadow' | 'second'} here
   */
  const costs = (now, here) => {
    const each = missCosts(now.guest.length);
    return h('section.walk-costs', {},
      h('span', { title: app.t('memory.walk.costs.calculated') }, app.t('memory.walk.costs')),
      h('ul', { title: app.t('memory.walk.costs.calculated') }, ...(/** @type {const} */ (['native', 'shadow', 'second'])).map((way) => h('li', { class: way === here ? 'here' : null },
        h('b', {}, String(each[way])), ` ${app.t(`memory.walk.costs.${way}`)}`, way === here && h('em', {}, app.t('memory.walk.costs.here'))))),
      h('span.walk-tlb', { title: app.t('memory.walk.tlb.detail') }, ...now.tlb ? [app.t('memory.walk.tlb'), ...Object.entries(now.tlb).map(([access, hit]) =>
        h('span', { class: hit ? 'hit' : 'miss' }, app.t(hit ? 'memory.walk.tlb.hit' : 'memory.walk.tlb.miss', { access: app.t(`memory.walk.tlb.${access}`) })))] : [app.t('memory.walk.tlb.none')]),
      h('span.walk-misses', { title: app.t('memory.walk.misses.detail') }, app.t('memory.walk.misses', now.walks)));
  };

  /** @param {Walk} now */
  function showWalk(now) {
    const parts = sv39(now.gva);
    const guest = app.guest === null ? undefined : app.store.guest(app.guest);
    const host = guest && app.store.host(guest.host);
    const layers = layersOf(host).guest;
    const kind = layers === 'virtual' ? host?.switches.includes('shadow-paging') ? 'shadow' : 'second' : layers === 'deprivileged' || layers === 'translated' ? 'shadow' : layers;
    const order = walkOrder(now.guest.length, now.second.map((stage) => stage.length));
    const references = (/** @type {number} */ count) => h('span.walk-count', {}, app.t('memory.walk.references', { count }));
    setAttribute(walk, 'aria-label', app.t('memory.walk', { address: hex(now.gva) }));
    walk.replaceChildren(
      costs(now, kind === 'paravirtual' ? 'native' : kind),
      h('section', {}, addressBox(app.t('memory.walk.gva'), now.gva, 'user'),
        h('dl.walk-parts', {}, ...parts.vpn.flatMap((part, index) => [h('dt', {}, `VPN[${2 - index}]`), h('dd', {}, `${part}`)]),
          h('dt', {}, 'offset'), h('dd', {}, hex(parts.offset, 3)))),
      h('section', {}, addressBox(app.t('memory.walk.gpa'), now.gpa, 'kernel'),
        h('h3', {}, app.t('memory.walk.guest'), ' ', references(now.references.guest)),
        now.guest.length > 0 ? stepList(now.guest, (index) => order.guest[index]) : now.gpa !== null && h('p.dim', {}, app.t('memory.walk.bare')),
        now.gpa === null && h('p.problem', {}, app.t(`memory.fault.${whyUnmapped(now.guest, now.gva)}`))),
      h('section', {}, addressBox(app.t('memory.walk.hpa'), now.hpa, 'hypervisor'),
        ...kind === 'second' ? secondStage(now, order, references) : [
          h('h3', {}, app.t(kind === 'paravirtual' ? 'memory.walk.direct' : 'memory.walk.shadow'), ' ', references(now.references.shadow)),
          now.shadow.length > 0 ? stepList(now.shadow, (index) => index + 1)
            : h('p.dim', {}, app.t(kind === 'native' ? 'memory.walk.baremetal' : 'memory.walk.noshadow'))]),
    );
  }

  /** What the panel is about, wherever its rows are scrolled to. */
  const subject = () => `${app.guest} ${vcpu} ${address} ${physical}`;

  const poll = poller(EVERY_MS, async () => {
    const { guest } = app;
    if (guest === null || !shown) return;
    const before = subject();
    try {
      const rows = shownRows();
      top = moved(top, 0, rows);
      const [memory, translation] = await Promise.all([
        app.query({ type: 'memory', guest, vcpu, address: top, length: rows * ROW_BYTES, physical }),
        physical ? null : app.query({ type: 'walk', guest, vcpu, address }),
      ]);
      if (subject() !== before) return; // somebody went elsewhere meanwhile, and has asked again
      state.show(null);
      content.hidden = false;
      showDump(hexdump(memory.address, new Uint8Array(memory.bytes), memory.mapped), memory.mapped.some(Boolean));
      walk.hidden = translation === null;
      if (translation) showWalk(translation);
    } catch (error) {
      if (subject() !== before) return;
      content.hidden = true;
      state.show(app.t('panel.failed', { reason: app.problemText(error) }), ask);
    }
  });

  function ask() {
    [...kinds.children].forEach((each) => setAttribute(each, 'aria-pressed', String(/** @type {HTMLElement} */ (each).dataset.physical === String(physical))));
    poll.request(false);
  }

  function update() {
    picker.update();
    const guest = app.guest === null ? undefined : app.store.guest(app.guest);
    bar.hidden = !guest;
    if (!guest) {
      content.hidden = true;
      state.show(app.t('panel.none'));
      return;
    }
    vcpu = Math.min(vcpu, guest.vcpus - 1);
    vcpus.update(guest.vcpus, vcpu);
    const want = takeWanted(app);
    if (want) {
      physical = false;
      goTo(want.address);
    } else if (!placed) goTo(word(app.store.live(guest.id).pc) || FIRST_ADDRESS);
    const question = `${guest.id} ${vcpu} ${app.store.position} ${app.store.running}`;
    if (question === asked) return;
    asked = question;
    poll.request(app.store.running);
  }

  dump.addEventListener('keydown', (event) => {
    const rows = { ArrowUp: -1, ArrowDown: 1, PageUp: -shownRows(), PageDown: shownRows() }[event.key];
    if (rows === undefined || event.target !== dump) return;
    event.preventDefault();
    top = moved(top, rows, shownRows());
    ask();
  });
  dump.addEventListener('wheel', (event) => {
    event.preventDefault();
    top = moved(top, Math.sign(event.deltaY) * 3, shownRows());
    ask();
  }, { passive: false });
  const sizes = new ResizeObserver(() => ask());
  sizes.observe(dump);
  undo.add(() => sizes.disconnect(), () => poll.stop(), app.on('guest', () => {
    placed = false;
    asked = '';
  }), app.store.on('keyframe', () => {
    asked = '';
  }));
  return {
    update,
    show: () => {
      shown = true;
      asked = '';
    },
    hide: () => {
      shown = false;
    },
    destroy: () => undo.run(),
  };
}
