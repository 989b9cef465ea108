// The exact value of a quantity's text as an integer, rounded up as Go's Value and MilliValue do.
import { quantityMilliValue as milliOf, quantityValue as valueOf, parseQuantity } from '../../kube/quantity.ts';

/** Throws a QuantityError for what is no quantity. */
export const quantityValue = (text: string | number): bigint => valueOf(parseQuantity(text));
export const quantityMilliValue = (text: string | number): bigint => milliOf(parseQuantity(text));
