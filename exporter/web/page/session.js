// What is kept for this tab only: the credential and a few choices.

const PREFIX = "bullmq-exporter.";
// Used where the browser does not let the page store anything.
const memory = new Map();

export function recall(name) {
  try {
    return sessionStorage.getItem(PREFIX + name);
  } catch {
    return memory.get(name) ?? null;
  }
}

export function remember(name, value) {
  try {
    sessionStorage.setItem(PREFIX + name, value);
  } catch {
    memory.set(name, value);
  }
}

export function forget(name) {
  memory.delete(name);
  try {
    sessionStorage.removeItem(PREFIX + name);
  } catch {
    // Nothing was stored then.
  }
}
