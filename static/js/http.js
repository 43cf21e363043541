/** Asking the server's routes, beside the socket: every answer is JSON with the same Problem as there. */

/**
 * @param {import('./app.js').App} app @param {string} path @param {string} [method]
 * @param {FormData | object} [body] a form, or what is sent as JSON
 * @returns {Promise<any>} the answer; rejects with the Problem it was refused with, which is "not-connected" when nobody answered
 */
export async function ask(app, path, method = 'GET', body) {
  /** @type {Record<string, string>} */
  const headers = { 'X-CSRF-Token': app.csrf, Accept: 'application/json' };
  const form = body === undefined || body instanceof FormData;
  if (!form) headers['Content-Type'] = 'application/json';
  const response = await fetch(path, { method, headers, body: form ? body : JSON.stringify(body) }).catch(() => {
    throw { key: 'not-connected', message: 'There is no connection to the server.' };
  });
  const answer = await response.json();
  if (!answer.ok) throw answer.error;
  return answer;
}
