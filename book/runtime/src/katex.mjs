// Build-time typesetter: one JSON request per line on stdin, one JSON answer per line on stdout.
import katex from "katex";
import { createInterface } from "node:readline";

const strict = (code, message) => { if (code !== "unicodeTextInMathMode") throw new Error(message); };

function typeset({ latex, display, macros }) {
  try {
    return { html: katex.renderToString(latex, { displayMode: display, macros, strict, throwOnError: true, output: "htmlAndMathml" }) };
  } catch (error) {
    return { error: error.message };
  }
}

for await (const line of createInterface({ input: process.stdin })) process.stdout.write(`${JSON.stringify(typeset(JSON.parse(line)))}\n`);
