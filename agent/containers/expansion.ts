// `$(NAME)` in commands, arguments and values of variables.

/**
 * Replaces `$(NAME)` by what `lookup` gives; a name it does not know stays as it was written. `$$` is a `$`, so `$$(NAME)` is the text
 * `$(NAME)`. Never throws.
 */
export function expand(text: string, lookup: (name: string) => string | undefined): string {
  let result = '';
  let at = 0;
  for (;;) {
    const dollar = text.indexOf('$', at);
    if (dollar < 0 || dollar === text.length - 1) return result + text.slice(at);
    result += text.slice(at, dollar);
    const next = text.charAt(dollar + 1);
    if (next === '$') {
      result += '$';
      at = dollar + 2;
      continue;
    }
    const close = next === '(' ? text.indexOf(')', dollar + 2) : -1;
    if (close < 0) {
      result += '$';
      at = dollar + 1;
      continue;
    }
    const name = text.slice(dollar + 2, close);
    result += lookup(name) ?? `$(${name})`;
    at = close + 1;
  }
}
