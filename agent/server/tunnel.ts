// A SPDY connection inside the binary messages of a WebSocket, as kubectl's port-forward has it: taken out, it is a connection like any other.
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { createWebSocketStream, type WebSocket, WebSocketServer } from 'ws';
import { joinStreams } from '../../lib/splice.ts';
import type { UpgradeCall } from './routes.ts';
import { dialSpdy } from './spdy-opener.ts';
import { offeredProtocols } from './web-socket.ts';

const tunnelProtocol = 'SPDY/3.1+portforward.k8s.io';
const forwardProtocol = 'portforward.k8s.io';
const maxMessageBytes = 4 * 1024 * 1024;

/** Whether the client offers to tunnel SPDY. */
export const isTunnel = ({ headers }: IncomingMessage): boolean =>
  offeredProtocols(headers['sec-websocket-protocol']).includes(tunnelProtocol);

/** Answers the handshake; the connection that was inside. Rejects where the handshake is wrong: the client has its answer by then. */
export async function openTunnel(call: UpgradeCall): Promise<Duplex> {
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
  });
  // The protocol's name has a slash, which RFC 6455 does not allow and ws refuses: it is taken off the request and answered by hand.
  const { 'sec-websocket-protocol': _named, ...headers } = call.request.headers;
  const request = Object.create(call.request, { headers: { value: headers } }) as IncomingMessage;
  server.on('headers', (lines) => void lines.push(`Sec-WebSocket-Protocol: ${tunnelProtocol}`));
  const socket = await new Promise<WebSocket>((resolve, reject) => {
    call.socket.once('close', () => reject(new Error('the WebSocket handshake failed')));
    server.handleUpgrade(request, call.socket, call.head, resolve);
  });
  call.stands();
  return createWebSocketStream(socket);
}

/** Joins the tunnel to the runtime's streaming URL; resolves when it has ended. Rejects with a SpliceError as long as the client got no answer. */
export async function tunnelTo(url: string, call: UpgradeCall, idleMs: number): Promise<void> {
  const { socket: upstream, head } = await dialSpdy(url, forwardProtocol, call.signal);
  try {
    const tunnel = await openTunnel(call);
    if (head.length > 0) tunnel.write(head);
    await joinStreams(tunnel, upstream, idleMs);
  } finally {
    upstream.destroy();
  }
}
