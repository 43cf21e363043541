/**
 * Builds static/vendor/ from the exact versions in package-lock.json, so that what the page loads can be traced to a
 * published package and checked.
 *
 *   npm ci && node static/vendor/build.mjs            write the files and vendor.json
 *   npm ci && node static/vendor/build.mjs --check    build in memory; fail if a committed file differs
 *
 * Invariants: every file the page loads is a row of vendor.json with its SHA-256; a library's folder holds its licence
 * (for a bundle, the licences of everything that went into it); the only change made to a copied file is that a
 * reference to its source map is removed, because the map is not shipped.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const vendor = dirname(fileURLToPath(import.meta.url));
const root = join(vendor, '..', '..');
const modules = join(root, 'node_modules');

/**
 * A library is either copied (`copy`: file in the package -> file in its folder) or bundled from `folder`/entry.js.
 * `packages` are the packages a reader knows it by: their versions and licences are what vendor.json states.
 * @typedef {{folder: string, packages: string[], copy?: Record<string, string>, bundle?: string,
 *            fonts?: {family: string, file: string, weights: string, package: string}[]}} Library
 * @type {Library[]}
 */
const libraries = [
  { folder: 'codemirror', packages: ['codemirror', '@codemirror/view', '@codemirror/state'], bundle: 'codemirror.js' },
  { folder: 'socket.io', packages: ['socket.io-client'], bundle: 'socket.io.js' },
  {
    folder: 'xterm',
    packages: ['@xterm/xterm', '@xterm/addon-fit'],
    copy: {
      '@xterm/xterm/lib/xterm.mjs': 'xterm.mjs',
      '@xterm/xterm/css/xterm.css': 'xterm.css',
      '@xterm/addon-fit/lib/addon-fit.mjs': 'addon-fit.mjs',
    },
  },
  {
    folder: 'uplot',
    packages: ['uplot'],
    copy: { 'uplot/dist/uPlot.esm.js': 'uPlot.esm.js', 'uplot/dist/uPlot.min.css': 'uPlot.min.css' },
  },
  {
    folder: 'fonts',
    packages: ['@fontsource-variable/inter', '@fontsource-variable/jetbrains-mono'],
    copy: {
      '@fontsource-variable/inter/files/inter-latin-wght-normal.woff2': 'inter-latin.woff2',
      '@fontsource-variable/jetbrains-mono/files/jetbrains-mono-latin-wght-normal.woff2': 'jetbrains-mono-latin.woff2',
    },
    fonts: [
      { family: 'Inter', file: 'inter-latin.woff2', weights: '100 900', package: '@fontsource-variable/inter' },
      {
        family: 'JetBrains Mono', file: 'jetbrains-mono-latin.woff2', weights: '100 800',
        package: '@fontsource-variable/jetbrains-mono',
      },
    ],
  },
];

/** @param {string} name @returns {{name: string, version: string, license: string}} */
function manifest(name) {
  return JSON.parse(readFileSync(join(modules, name, 'package.json'), 'utf8'));
}

/** The licence text of a package, found under any of the usual names. @param {string} name @returns {string} */
function licenceText(name) {
  const file = readdirSync(join(modules, name)).find((entry) => /^licen[cs]e(\.(md|txt))?$/i.test(entry));
  if (!file) throw new Error(`${name} ships no licence file: do not vendor it`);
  const { version, license } = manifest(name);
  return `${name} ${version} (${license})\n\n${readFileSync(join(modules, name, file), 'utf8').trim()}\n`;
}

/** The package that a bundled input file belongs to. @param {string} input @returns {string | undefined} */
function packageOf(input) {
  return /(?:^|\/)node_modules\/((?:@[^/]+\/)?[^/]+)\/(?!.*node_modules\/)/.exec(input)?.[1];
}

/** @param {Buffer} content @param {string} file @returns {Buffer} */
function withoutSourceMap(content, file) {
  if (!/\.(m?js|css)$/.test(file)) return content;
  return Buffer.from(content.toString('utf8').replace(/\n?(\/\/|\/\*)# sourceMappingURL=\S+( \*\/)?\s*$/, '\n'));
}

/** @param {NonNullable<Library['fonts']>} fonts @returns {string} */
function fontFaces(fonts) {
  return fonts.map((font) => {
    const ranges = JSON.parse(readFileSync(join(modules, font.package, 'unicode.json'), 'utf8'));
    return `@font-face {
  font-family: '${font.family}';
  font-style: normal;
  font-display: swap;
  font-weight: ${font.weights};
  src: url('${font.file}') format('woff2');
  unicode-range: ${ranges.latin};
}
`;
  }).join('\n');
}

/** @param {Library} library @returns {Promise<Map<string, Buffer>>} the files of the library's folder, by name */
async function produce(library) {
  /** @type {Map<string, Buffer>} */
  const files = new Map();
  const licensed = new Set(library.packages);
  if (library.bundle) {
    const result = await build({
      absWorkingDir: root,
      entryPoints: [join('static', 'vendor', library.folder, 'entry.js')],
      bundle: true, minify: true, write: false, metafile: true, format: 'esm', target: 'es2022', platform: 'browser',
      legalComments: 'none', charset: 'utf8', define: { 'process.env.NODE_ENV': '"production"' },
    });
    files.set(library.bundle, Buffer.from(result.outputFiles[0].contents));
    for (const input of Object.keys(result.metafile.inputs)) {
      const name = packageOf(input);
      if (name) licensed.add(name);
    }
  }
  for (const [source, target] of Object.entries(library.copy ?? {})) {
    files.set(target, withoutSourceMap(readFileSync(join(modules, source)), target));
  }
  if (library.fonts) files.set('fonts.css', Buffer.from(fontFaces(library.fonts)));
  const separator = `\n${'-'.repeat(78)}\n\n`;
  files.set('LICENSE', Buffer.from([...licensed].sort().map(licenceText).join(separator)));
  return files;
}

const check = process.argv.includes('--check');
const stale = [];
const rows = [];
for (const library of libraries) {
  const files = await produce(library);
  for (const [name, content] of files) {
    const path = join(vendor, library.folder, name);
    if (check) {
      if (!existsSync(path) || !readFileSync(path).equals(content)) stale.push(relative(root, path));
    } else {
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, content);
    }
  }
  rows.push({
    folder: library.folder,
    packages: library.packages.map((name) => {
      const { version, license } = manifest(name);
      return { name, version, licence: license };
    }),
    files: Object.fromEntries([...files].map(([name, content]) => [
      name, createHash('sha256').update(content).digest('hex'),
    ]).sort()),
  });
}
const index = join(vendor, 'vendor.json');
const text = `${JSON.stringify(rows, null, 2)}\n`;
if (!check) writeFileSync(index, text);
else if (!existsSync(index) || readFileSync(index, 'utf8') !== text) stale.push(relative(root, index));
if (stale.length) {
  console.error(`These files are not what package-lock.json builds:\n  ${stale.join('\n  ')}\n`
    + 'Run: npm ci && node static/vendor/build.mjs');
  process.exit(1);
}
console.log(`${check ? 'checked' : 'wrote'} ${rows.reduce((sum, row) => sum + Object.keys(row.files).length, 0)} files`);
