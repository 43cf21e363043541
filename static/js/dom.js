/** Making DOM elements without markup in strings, so that no text from a lab can ever become markup. */

/**
 * @typedef {Node | string | number | null | undefined | false} Child
 */

/**
 * `h('button.primary', {onclick, 'aria-label': text}, 'Run')`: properties that start with "on" are listeners, `dataset`
 * and `style` take objects, `true` sets a bare attribute, null, undefined and false leave
 * it out; aria- attributes are written as "true" and "false".
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T | `${T}.${string}`} tag
 * @param {Record<string, any> | null} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, attributes, ...children) {
  const [name, ...classes] = tag.split('.');
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(' ');
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || (value === false && !key.startsWith('aria-'))) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'dataset') Object.assign(element.dataset, value);
    else if (key === 'style') for (const [property, text] of Object.entries(value)) element.style.setProperty(property, String(text));
    else element.setAttribute(key, value === true && !key.startsWith('aria-') ? '' : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false).map(
    (child) => (typeof child === 'number' ? String(child) : /** @type {Node | string} */ (child)),
  ));
  return /** @type {HTMLElementTagNameMap[T]} */ (element);
}

/** Change an element's text only when it differs. @param {Node} node @param {string} text */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set or remove an attribute only when it differs. @param {Element} element @param {string} name @param {string | null} value */
export function setAttribute(element, name, value) {
  if (element.getAttribute(name) === value) return;
  if (value === null) element.removeAttribute(name);
  else element.setAttribute(name, value);
}

/** The element that the template promised. @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no element #${id}`);
  return element;
}

/**
 * Fill every `data-t` (text), `data-t-label` (aria-label) and `data-t-title` of a part of the page from the catalogue.
 * @param {ParentNode} root @param {import('./i18n.js').I18n} i18n
 */
export function translate(root, i18n) {
  for (const element of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll('[data-t], [data-t-label], [data-t-title]'))) {
    const { t, tLabel, tTitle } = element.dataset;
    if (t) setText(element, i18n.t(t));
    if (tLabel) setAttribute(element, 'aria-label', i18n.t(tLabel));
    if (tTitle) setAttribute(element, 'title', i18n.t(tTitle));
  }
}

/** A filled icon of icons.js. @param {string} path of a 16x16 view @param {string} [className] */
export function icon(path, className = 'icon') {
  const namespace = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(namespace, 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('class', className);
  svg.setAttribute('aria-hidden', 'true');
  const shape = document.createElementNS(namespace, 'path');
  shape.setAttribute('d', path);
  svg.append(shape);
  return svg;
}
