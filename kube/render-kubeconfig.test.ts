import { describe, expect, it } from 'vitest';
import { parseKubeconfig } from './kubeconfig.ts';
import { renderKubeconfig } from './render-kubeconfig.ts';

const pem = `-----BEGIN CERTIFICATE-----\n${'A'.repeat(200)}\n-----END CERTIFICATE-----\n`;

describe('a kubeconfig that is written', () => {
  it('names files', () => {
    const file = { from: 'file', path: '/var/lib/kubelet/pki/client current.pem' } as const;
    const text = renderKubeconfig({
      cluster: 'default-cluster',
      server: 'https://[fd00::1]:6443',
      certificateAuthority: { from: 'file', path: '/etc/kubernetes/pki/ca.crt' },
      tlsServerName: 'api',
      user: 'default-auth',
      client: { certificate: file, key: file },
    });
    expect(parseKubeconfig(text, '/k')).toMatchObject({
      server: 'https://[fd00::1]:6443',
      certificateAuthority: { from: 'file', path: '/etc/kubernetes/pki/ca.crt' },
      tlsServerName: 'api',
      clientCertificate: file,
      clientKey: file,
    });
  });

  it('holds what is at hand, each on a line of its own', () => {
    const data = { from: 'data', pem } as const;
    const text = renderKubeconfig({
      cluster: 'c',
      server: 'https://h',
      certificateAuthority: data,
      user: 'u: #1',
      token: 'abcdef.0123456789abcdef',
    });
    expect(parseKubeconfig(text, '/k')).toMatchObject({ certificateAuthority: data, token: 'abcdef.0123456789abcdef' });
    expect(text.split('\n').find((line) => line.includes('certificate-authority-data'))).toContain(
      Buffer.from(pem).toString('base64'),
    );
  });

  it('leaves out what is not there', () => {
    const text = renderKubeconfig({ cluster: 'c', server: 'https://h', certificateAuthority: undefined, user: 'u' });
    expect(text).not.toMatch(/certificate|token|tls-server-name/);
    expect(parseKubeconfig(text, '/k').server).toBe('https://h');
  });
});
