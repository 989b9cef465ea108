#!/usr/bin/env node
// The `stevedore` command. Each subcommand has a file of its own.
import { createProgram } from './program.ts';

await createProgram().parseAsync();
