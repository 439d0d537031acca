/**
 * The text of what a view makes, as a reader sees it: without drawing it, and so without a browser.
 *
 * @param {any} content
 * @returns {string}
 */
export function textOf(content) {
  return texts(content).join("").replace(/\s+/g, " ").trim();
}

/**
 * @param {any} content
 * @returns {string[]}
 */
function texts(content) {
  if (content === null || content === undefined || typeof content === "boolean") return [];
  if (Array.isArray(content)) return content.flatMap(texts);
  return typeof content === "object" ? texts(content.props.children) : [String(content)];
}
