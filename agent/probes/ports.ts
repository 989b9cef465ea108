// A port given by number or by the name that a container gives it.
import type { IntOrString } from '../../kube/types/meta.ts';
import type { Container } from '../../kube/types/pod.ts';

/** Throws an Error with Kubernetes' words for what is no port. */
export function resolvePort(port: IntOrString, container: Container): number {
  let number = typeof port === 'number' ? port : container.ports?.find((each) => each.name === port)?.containerPort;
  if (number === undefined) {
    if (!/^[+-]?\d+$/.test(String(port))) throw new Error(`strconv.Atoi: parsing "${port}": invalid syntax`);
    number = Number(port);
  }
  if (!(number > 0 && number < 65_536)) throw new Error(`invalid port number: ${number}`);
  return number;
}
