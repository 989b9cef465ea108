// The library that makes certificates, to be loaded by `await import` where one is made: few nodes need it, and it is large.
import 'reflect-metadata';

export * as x509 from '@peculiar/x509';
