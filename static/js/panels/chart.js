/**
 * The trap-rate chart: traps a second of wall time by disposition over the last minute, from exact counts. Colours and dash
 * patterns both tell the lines apart; the numbers of the last second are its text for screen readers.
 * @typedef {import('../app.js').App} App
 */
import uPlot from '../../vendor/uplot/uPlot.esm.js';
import { h, setAttribute, setText } from '../dom.js';
import { themeColour, Undoing } from './parts.js';
import { sessionOf } from './session.js';

const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [1, 2]];
const DRAW_MS = 500;

/** @param {App} app */
export function rateChart(app) {
  const { rates } = sessionOf(app);
  const undo = new Undoing();
  const legend = h('ul.chart-legend', {});
  const plotElement = h('div.chart-plot', { role: 'img', 'aria-label': app.t('traps.chart.label') });
  const element = h('figure.chart', {}, h('figcaption', {}, app.t('traps.chart.axis')), plotElement, legend);
  /** @type {uPlot | null} */
  let plot = null;
  let drawn = 0;
  /** @type {HTMLElement[]} */
  let figures = [];

  function build() {
    plot?.destroy();
    plot = null;
    const { clientWidth: width, clientHeight: height } = plotElement;
    if (width < 40 || height < 30 || rates.dispositions === 0) return;
    const names = app.store.schema.dispositions;
    const axis = {
      stroke: themeColour(plotElement, '--dim'), font: `10px ${themeColour(plotElement, '--font-text') || 'sans-serif'}`,
      grid: { stroke: themeColour(plotElement, '--line'), width: 1 }, ticks: { show: false },
    };
    plot = new uPlot({
      width, height, padding: [6, 6, 0, 0], legend: { show: false }, cursor: { show: false },
      scales: { x: { time: false }, y: { range: (_, __, most) => [0, Math.max(most * 1.1, 4)] } },
      axes: [
        { ...axis, size: 18, gap: 2, space: 50, values: (_, splits) => splits.map((seconds) => (seconds === 0 ? '0' : `${seconds} s`)) },
        { ...axis, size: 44, gap: 4, space: 26, values: (_, splits) => splits.map((rate) => app.i18n.compact(rate)) },
      ],
      series: [{}, ...names.map((name, index) => ({
        label: name, stroke: themeColour(plotElement, `--disposition-${name}`), width: 1.5, dash: DASHES[index % DASHES.length], points: { show: false },
      }))],
    }, /** @type {uPlot.AlignedData} */ (rates.columns()), plotElement);
    legend.replaceChildren(...names.map((name) => {
      const figure = h('span.chart-figure', {}, '0');
      return h('li', { 'data-disposition': name }, h('span.chart-key', { 'aria-hidden': 'true' }),
        h('span', {}, app.t(`disposition.${name}`)), figure);
    }));
    figures = [...legend.querySelectorAll('.chart-figure')].map((figure) => /** @type {HTMLElement} */ (figure));
  }

  const sizes = new ResizeObserver(() => build());
  sizes.observe(plotElement);
  undo.add(() => sizes.disconnect(), () => plot?.destroy(), app.on('theme', () => requestAnimationFrame(build)));

  return {
    element,
    /** Draw again, at most twice a second. @param {number} now ms */
    update(now) {
      if (element.hidden || now - drawn < DRAW_MS) return;
      drawn = now;
      if (!plot || plot.series.length !== rates.dispositions + 1) build();
      if (!plot) return;
      rates.begin(now);
      plot.setData(/** @type {uPlot.AlignedData} */ (rates.columns()));
      const counts = rates.lastSecond();
      counts.forEach((count, index) => figures[index] && setText(figures[index], app.i18n.compact(count)));
      const names = app.store.schema.dispositions;
      setAttribute(plotElement, 'aria-label', `${app.t('traps.chart.label')}. ${app.t('traps.chart.summary', {
        total: counts.reduce((sum, count) => sum + count, 0),
        parts: counts.map((count, index) => `${app.t(`disposition.${names[index]}`)} ${app.n(count)}`).join(', '),
      })}`);
    },
    destroy: () => undo.run(),
  };
}
