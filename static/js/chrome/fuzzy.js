/** How well letters match a title, for the command palette. Pure. */

/**
 * All letters must occur in order; runs and word beginnings count more.
 * @param {string} query @param {string} title
 * @returns {number} 0: no match; an empty query matches everything equally
 */
export function fuzzy(query, title) {
  const letters = query.toLowerCase().replaceAll(/\s+/g, '');
  const text = title.toLowerCase();
  if (!letters) return 1;
  let score = 1;
  let from = 0;
  let previous = -2;
  for (const letter of letters) {
    const at = text.indexOf(letter, from);
    if (at < 0) return 0;
    score += at === previous + 1 ? 4 : 1;
    if (at === 0 || /[\s:·-]/.test(text[at - 1])) score += 3;
    previous = at;
    from = at + 1;
  }
  return score / (1 + title.length / 200);
}
