/** What is under a point: pure, over a scene's boxes. */

/**
 * The innermost box at a world point; the later drawn wins. Bands count, so that a tooltip can speak of them.
 * @param {import('./layout.js').Scene} scene
 * @param {number} x world @param {number} y world
 * @returns {import('./layout.js').Box | null}
 */
export function hit(scene, x, y) {
  let found = null;
  for (const box of scene.boxes) {
    if (x < box.x || y < box.y || x >= box.x + box.w || y >= box.y + box.h) continue;
    if (!found || box.host !== found.host || box.w * box.h <= found.w * found.h) found = box;
  }
  return found;
}

/**
 * What a click on a box selects: a guest, or the host that everything else belongs to.
 * @param {import('./layout.js').Box | null} box
 * @returns {import('../app.js').Selection | null}
 */
export function selectionOf(box) {
  if (!box) return null;
  return box.guest ? { kind: 'guest', id: box.guest } : { kind: 'host', id: box.host };
}
