/** The project's own files, their syntax trees, and what they import. */
import ts from "typescript";

export const PROJECT = decodeURIComponent(new URL("../../", import.meta.url).pathname);

/** Folders whose contents nobody writes by hand: hidden ones (but .ci), builds, the model. */
const GENERATED = /^\.(?!ci$)|(^|\/)(node_modules|target|pkg)$|^models$/;

/** Paths relative to the project, sorted, of all files that people write. */
export function projectFiles(folder = ""): string[] {
  const files: string[] = [];
  for (const entry of Deno.readDirSync(PROJECT + folder)) {
    const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
    if (entry.isDirectory && GENERATED.test(path)) continue;
    if (entry.isDirectory) files.push(...projectFiles(path));
    else if (entry.isFile) files.push(path);
  }
  return files.sort();
}

export function readText(path: string): string {
  return Deno.readTextFileSync(PROJECT + path);
}

export function parse(path: string): ts.SourceFile {
  return ts.createSourceFile(path, readText(path), ts.ScriptTarget.Latest, true);
}

/** Calls `visitor` for every node below `node`. */
export function visit(node: ts.Node, visitor: (node: ts.Node) => void): void {
  visitor(node);
  ts.forEachChild(node, (child) => visit(child, visitor));
}

/**
 * What a TypeScript file names as another module: static and dynamic imports, re-exports, types in
 * `import("...")`, and `new URL("...", import.meta.url)`, by which Workers are started. Files of
 * the
 * project come as paths relative to it, others as they are written.
 */
export function importsOf(path: string): string[] {
  const found: string[] = [];
  visit(parse(path), (node) => {
    const specifier = specifierOf(node);
    if (specifier === undefined || !ts.isStringLiteralLike(specifier)) return;
    const { text } = specifier;
    const relative = text.startsWith("./") || text.startsWith("../");
    found.push(relative ? new URL(text, `file:///${path}`).pathname.slice(1) : text);
  });
  return found;
}

function specifierOf(node: ts.Node): ts.Node | undefined {
  if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return node.moduleSpecifier;
  if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
    return node.argument.literal;
  }
  if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
    return node.arguments[0];
  }
  if (ts.isNewExpression(node) && node.expression.getText() === "URL") {
    return node.arguments?.[1]?.getText() === "import.meta.url" ? node.arguments[0] : undefined;
  }
  return undefined;
}
