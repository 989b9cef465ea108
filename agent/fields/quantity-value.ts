// The exact value of a quantity's text as an integer, rounded up as Go's Value and MilliValue do.
import { parseQuantity, quantityMilliValue as thousandths, quantityValue as units } from '../../kube/quantity.ts';

/** Throws a QuantityError for what is no quantity. */
export const quantityValue = (text: string | number): bigint => units(parseQuantity(text));
export const quantityMilliValue = (text: string | number): bigint => thousandths(parseQuantity(text));
