// Requests to the server that this page came from. What fails says so in the server's words.

const TOKEN = "raydistill.token"; // sessionStorage: until the tab is closed
const HEADERS = { "content-type": "application/json" };

export class Problem extends Error {
  constructor(text, hint, status) {
    super(text);
    this.hint = hint;
    this.status = status;
  }
}

export function setToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

/** The JSON of an answer; without `body` a GET. Rejects with a Problem, or an AbortError. */
export async function ask(path, { body, signal } = {}) {
  const response = await sent(path, body, signal);
  const content = await json(response, signal);
  if (response.ok && content !== undefined) return content;
  const error = content?.error ?? `The server answered ${response.status}, and no JSON`;
  throw new Problem(error, content?.hint ?? "", response.status);
}

async function sent(path, body, signal) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { ...HEADERS, authorization: `Bearer ${token}` } : HEADERS;
  const more = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  try {
    return await fetch(path, { headers, signal, cache: "no-store", ...more });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("The server does not answer", "it is stopped, or cannot be reached", 0);
  }
}

async function json(response, signal) {
  try {
    return await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    return undefined;
  }
}
