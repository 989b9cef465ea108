import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fixedTime, parseLogLine, timeMs } from './log-format.ts';

const parse = (text: string) => {
  const record = parseLogLine(Buffer.from(text));
  return record && { ...record, content: record.content.toString() };
};

describe('parseLogLine', () => {
  it.each([
    ['2016-10-06T00:17:09.669794202Z stdout F log 1\n', '2016-10-06T00:17:09.669794202Z', 'stdout', 'log 1\n'],
    ['2016-10-06T00:17:09.6Z stderr P log 2\n', '2016-10-06T00:17:09.6Z', 'stderr', 'log 2'],
    ['2016-10-06T00:17:09Z stdout P:x log 3\n', '2016-10-06T00:17:09Z', 'stdout', 'log 3'],
    ['2016-10-06T00:17:09+02:00 stdout F:P log 4\n', '2016-10-06T00:17:09+02:00', 'stdout', 'log 4\n'],
    ['2016-10-06T00:17:09Z stdout F \n', '2016-10-06T00:17:09Z', 'stdout', '\n'],
    ['2016-10-06T00:17:09Z stdout P \n', '2016-10-06T00:17:09Z', 'stdout', ''],
    ['2016-10-06T00:17:09Z stdout F no newline', '2016-10-06T00:17:09Z', 'stdout', 'no newline'],
    [
      '{"log":"a\\n","stream":"stderr","time":"2016-10-20T18:39:20.57606443Z"}\n',
      '2016-10-20T18:39:20.57606443Z',
      'stderr',
      'a\n',
    ],
  ])('%s', (line, time, stream, content) => {
    expect(parse(line)).toEqual({ time, stream, content });
  });

  it.each([
    '',
    '\n',
    'x stdout F y\n',
    '2016-10-06T00:17:09Z stdin F y\n',
    '2016-10-06T00:17:09Z stdout\n',
    '{"log":1}\n',
    '{\n',
  ])('skips %j', (line) => expect(parse(line)).toBeUndefined());

  it('gives back what a runtime wrote', () => {
    fc.assert(
      fc.property(
        fc.date({ min: new Date(0), max: new Date(4e12), noInvalidDate: true }),
        fc.constantFrom('stdout', 'stderr'),
        fc.boolean(),
        fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes.filter((byte) => byte !== 10))),
        (date, stream, partial, content) => {
          const head = Buffer.from(`${date.toISOString()} ${stream} ${partial ? 'P' : 'F'} `);
          const record = parseLogLine(Buffer.concat([head, content, Buffer.from('\n')]));
          expect(record?.stream).toBe(stream);
          expect(timeMs(record?.time ?? '')).toBe(date.getTime());
          expect(record?.content.equals(partial ? content : Buffer.concat([content, Buffer.from('\n')]))).toBe(true);
        },
      ),
    );
  });

  it('never throws', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void parseLogLine(Buffer.from(bytes))));
  });
});

describe('times', () => {
  it('are shown with nine digits', () => {
    expect(fixedTime('2016-10-06T00:17:09.6Z')).toBe('2016-10-06T00:17:09.600000000Z');
    expect(fixedTime('2016-10-06T00:17:09+02:00')).toBe('2016-10-06T00:17:09.000000000+02:00');
  });
  it('are compared by the millisecond', () => {
    expect(timeMs('1970-01-01T00:00:01.2345678Z')).toBe(1234);
    expect(timeMs('1970-01-01T01:00:01+01:00')).toBe(1000);
  });
});
