// Stands in for sanitize-html (200 KB): labels may carry HTML only where an author allows it, and this book never does.
export default (text) => text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
