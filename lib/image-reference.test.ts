// Image names: parsed as every tool does, and written out in full.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalImageName, parseImageReference, repositoryName } from './image-reference.ts';

const digest = `sha256:${'a'.repeat(64)}`;

describe('image references', () => {
  it.each([
    ['busybox', 'docker.io/library/busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36'],
    ['user/app', 'docker.io/user/app:latest'],
    ['docker.io/busybox', 'docker.io/library/busybox:latest'],
    ['index.docker.io/busybox', 'docker.io/library/busybox:latest'],
    ['localhost/app:1', 'localhost/app:1'],
    ['localhost:5000/app', 'localhost:5000/app:latest'],
    ['registry.k8s.io/e2e-test-images/agnhost:2.53', 'registry.k8s.io/e2e-test-images/agnhost:2.53'],
    [`busybox@${digest}`, `docker.io/library/busybox@${digest}`],
    [`reg.example:443/a/b_c.d--e:v1@${digest}`, `reg.example:443/a/b_c.d--e:v1@${digest}`],
    ['[2001:db8::1]:5000/app:1', '[2001:db8::1]:5000/app:1'],
  ])('%s is %s', (text, canonical) => {
    expect(canonicalImageName(parseImageReference(text))).toBe(canonical);
  });

  it.each([
    ['', 'invalid reference format'],
    ['Foo', 'invalid reference format: repository name (library/Foo) must be lowercase'],
    ['reg.example/Foo/bar', 'invalid reference format: repository name (Foo/bar) must be lowercase'],
    ['app:', 'invalid reference format'],
    ['app@sha256:abc', 'invalid reference format'],
    [`app@sha256:${'a'.repeat(63)}`, 'invalid reference format'],
    ['app:!', 'invalid reference format'],
    ['a//b', 'invalid reference format'],
    ['-app', 'invalid reference format'],
    [' app', 'invalid reference format'],
    ['a'.repeat(64), `invalid repository name (${'a'.repeat(64)}), cannot specify 64-byte hexadecimal strings`],
  ])('%j is refused', (text, message) => {
    expect(() => parseImageReference(text)).toThrow(message);
  });

  it('what is written out in full is read back the same', () => {
    const part = fc.stringMatching(/^[a-z0-9]{1,8}([._-][a-z0-9]{1,4})?$/);
    const name = fc.tuple(
      fc.constantFrom('docker.io', 'localhost', 'reg.example:5000'),
      fc.array(part, { minLength: 2, maxLength: 3 }),
      fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,20}$/),
    );
    fc.assert(
      fc.property(name, ([registry, parts, tag]) => {
        const text = `${registry}/${parts.join('/')}:${tag}`;
        const reference = parseImageReference(text);
        expect(canonicalImageName(reference)).toBe(text);
        expect(repositoryName(reference)).toBe(`${registry}/${parts.join('/')}`);
      }),
    );
  });
});
