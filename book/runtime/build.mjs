// node build.mjs [--check]: everything the book's pages need from npm, into dist/ (committed, so `make book` needs no npm).
import { build } from "esbuild";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const here = dirname(fileURLToPath(import.meta.url)), check = process.argv.includes("--check");
process.chdir(here);

const common = { absWorkingDir: here, bundle: true, write: false, minify: true, charset: "utf8", legalComments: "none", outdir: "dist/site", metafile: true, logLevel: "warning" };
const results = await Promise.all([
  build({ ...common, entryPoints: ["src/widgets.js", "src/widgets.css"], format: "iife", target: "es2022", loader: { ".svg": "dataurl" },
    alias: { "@lumino/widgets": "./src/lumino.js", "sanitize-html": "./src/escape.js", jquery: "./node_modules/jquery/dist/jquery.slim.js" } }),
  build({ ...common, entryPoints: { typeset: "src/katex.mjs" }, outdir: "dist", format: "esm", platform: "node", target: "node20", outExtension: { ".js": ".mjs" } }),
]);

const notice = (name) => {
  const { version, license } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  const file = readdirSync(`node_modules/${name}`).find((f) => /^licen[cs]e/i.test(f));
  const text = readFileSync(file ? `node_modules/${name}/${file}` : `src/${license}.txt`, "utf8"); // Jupyter's packages ship none
  return `${name} ${version} (${license})\n\n${text.trim()}\n`;
};
const packages = new Set(results.flatMap(({ metafile }) => Object.keys(metafile.inputs)).map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]).filter(Boolean));
const fonts = readdirSync("node_modules/katex/dist/fonts").filter((f) => f.endsWith(".woff2"));

const files = new Map(results.flatMap(({ outputFiles }) => outputFiles.map(({ path, contents }) => [path.slice(join(here, "dist").length + 1), Buffer.from(contents)])));
for (const font of fonts) files.set(join("site", "katex", "fonts", font), readFileSync(`node_modules/katex/dist/fonts/${font}`));
// The fonts of nearly every formula travel inside the style sheet: fetched later, they would move the text around them.
const inline = (font) => /Main-Regular|Math-Italic|Size[1-4]/.test(font);
const css = readFileSync("node_modules/katex/dist/katex.min.css", "utf8")
  .replace(/,url\([^)]*\.(woff|ttf)\) format\("[^"]*"\)/g, "") // every browser of today reads woff2
  .replace(/url\(fonts\/([^)]*)\)/g, (url, font) => inline(font) ? `url(data:font/woff2;base64,${files.get(join("site", "katex", "fonts", font)).toString("base64")})` : url);
for (const font of fonts.filter(inline)) files.delete(join("site", "katex", "fonts", font));
files.set(join("site", "katex", "katex.css"), Buffer.from(css));
files.set(join("site", "LICENSES.txt"), Buffer.from([...packages].sort().map(notice).join(`\n${"-".repeat(80)}\n\n`)));

let stale = 0, total = 0;
for (const [name, contents] of files) {
  const file = join("dist", name);
  total += contents.length;
  if (!name.endsWith(".woff2")) console.log(`${name}: ${contents.length} bytes, ${gzipSync(contents).length} gzipped`);
  if (check && (!existsSync(file) || !readFileSync(file).equals(contents))) { console.error(`dist/${name} is stale: run \`node build.mjs\``); stale = 1; }
  if (!check) { mkdirSync(dirname(file), { recursive: true }); writeFileSync(file, contents); }
}
console.log(`${files.size} files, ${total} bytes`);
process.exit(stale);
