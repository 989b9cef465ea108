// CRI's list of signals: the place in the list is what goes over the wire.
const names = [
  'RUNTIME_DEFAULT',
  ...'ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ'
    .split(' ')
    .map((name) => `SIG${name}`),
  'SIGRTMIN',
  ...Array.from({ length: 15 }, (_, index) => `SIGRTMIN+${index + 1}`),
  ...Array.from({ length: 14 }, (_, index) => `SIGRTMAX-${14 - index}`),
  'SIGRTMAX',
];

/** Kubernetes writes `SIGRTMIN+3`, the protocol `SIGRTMINPLUS3`. */
const canonical = (name: string): string => name.replace('PLUS', '+').replace('MINUS', '-');

/** 0, the runtime's default, for undefined and for what the protocol has no name for. */
export function signalToWire(name: string | undefined): number {
  const index = name === undefined ? 0 : names.indexOf(canonical(name));
  return Math.max(index, 0);
}

/** Undefined where the runtime said nothing. */
export const signalFromWire = (value: number): string | undefined => (value > 0 ? names[value] : undefined);
