// What a client needs to know to reach one API server as one identity. kubeconfig.ts reads it from files.

/** A PEM text: given in the configuration itself, or in a file that is read again when it changes. */
export type Pem = { readonly from: 'data'; readonly pem: string } | { readonly from: 'file'; readonly path: string };

/** A program that hands out credentials (client.authentication.k8s.io). */
export interface ExecCredentialConfig {
  readonly apiVersion: 'client.authentication.k8s.io/v1' | 'client.authentication.k8s.io/v1beta1';
  /** Absolute, or a name that is looked up on PATH. */
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly provideClusterInfo: boolean;
  readonly installHint: string | undefined;
  /** The cluster's `client.authentication.k8s.io/exec` extension, passed on to the program. */
  readonly clusterExtension: unknown;
}

export interface ClientConfig {
  /** For messages: where this configuration came from. */
  readonly source: string;
  /** `https://host:port`, perhaps with a path. */
  readonly server: string;
  readonly certificateAuthority?: Pem | undefined;
  readonly insecureSkipTlsVerify?: boolean | undefined;
  /** Name that the server's certificate must have, where it is not that of `server`. */
  readonly tlsServerName?: string | undefined;
  readonly clientCertificate?: Pem | undefined;
  readonly clientKey?: Pem | undefined;
  readonly token?: string | undefined;
  /** Read again every minute, as service account tokens are replaced in place. Wins over `token`. */
  readonly tokenFile?: string | undefined;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly exec?: ExecCredentialConfig | undefined;
  /** The context's namespace. */
  readonly namespace?: string | undefined;
  /** A limit on calls (not on watches); absent: none. */
  readonly rateLimit?: { readonly qps: number; readonly burst: number } | undefined;
  readonly userAgent?: string | undefined;
}

/** A configuration that cannot be used. The message names the file and the field. */
export class ClientConfigError extends Error {
  override name = 'ClientConfigError';
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
  }
}
