// State of this tab only: the credential and a few choices.

const PREFIX = "bullmq-exporter.";
/** @type {Map<string, string>} Used where the browser does not let the page store anything. */
const memory = new Map();

/** @param {string} name */
export function recall(name) {
  try {
    return sessionStorage.getItem(PREFIX + name);
  } catch {
    return memory.get(name) ?? null;
  }
}

/**
 * @param {string} name
 * @param {string} value
 */
export function remember(name, value) {
  try {
    sessionStorage.setItem(PREFIX + name, value);
  } catch {
    memory.set(name, value);
  }
}

/** @param {string} name */
export function forget(name) {
  memory.delete(name);
  try {
    sessionStorage.removeItem(PREFIX + name);
  } catch {
    // Nothing was stored then.
  }
}
