// node build.mjs [--check] [view ...]: bundle each view in views/ into one self-contained ES module in ../dist/.
// Every view is built alone, so that a half-written one stops no other; the exit code is 1 when any failed or is stale.
import { build, transform } from "esbuild";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const HERE = dirname(fileURLToPath(import.meta.url)), DIST = join(HERE, "..", "dist");
const names = process.argv.slice(2).filter((a) => !a.startsWith("--")), check = process.argv.includes("--check");

/** A style sheet arrives in its module as one minified string. */
const css = { name: "css", setup(b) {
  b.onLoad({ filter: /\.css$/ }, async ({ path }) => {
    const { code } = await transform(readFileSync(path, "utf8"), { loader: "css", minify: true });
    return { loader: "text", contents: code };
  });
} };

/** The notices of the packages whose code went into a bundle (ISC asks for them in every copy), equal terms once. */
function licences(inputs) {
  const packages = new Set(inputs.map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]).filter(Boolean));
  const terms = new Map();
  for (const name of [...packages].sort()) {
    const [copyright, ...text] = readFileSync(join(HERE, "node_modules", name, "LICENSE"), "utf8").trim().split("\n\n");
    const key = text.join("\n\n");
    terms.set(key, [...(terms.get(key) ?? []), `${name}: ${copyright}`]);
  }
  return [...terms].map(([text, holders]) => `/*! ${holders.join("\n")}\n\n${text} */\n`).join("");
}

async function bundle(name) {
  const { outputFiles: [{ text }], metafile } = await build({
    absWorkingDir: HERE, entryPoints: [`views/${name}.js`], outdir: "out", write: false, metafile: true, plugins: [css],
    bundle: true, format: "esm", minify: true, target: "es2022", charset: "utf8", legalComments: "none", logLevel: "silent",
  });
  return Buffer.from(licences(Object.keys(metafile.inputs)) + text);
}

const all = readdirSync(join(HERE, "views")).filter((f) => f.endsWith(".js")).map((f) => basename(f, ".js")).sort();
mkdirSync(DIST, { recursive: true });
for (const name of names.length ? names : all) {
  const file = join(DIST, `${name}.js`);
  try {
    const code = await bundle(name);
    const fresh = existsSync(file) && readFileSync(file).equals(code);
    if (check && !fresh) throw new Error(`dist/${name}.js is stale: run python -m tools.figures`);
    if (!fresh) writeFileSync(file, code);
    console.log(`${name}: ${code.length} bytes, ${gzipSync(code).length} gzipped`);
  } catch (error) {
    console.error(`${name} FAILED: ${error.message}`);
    process.exitCode = 1;
  }
}
