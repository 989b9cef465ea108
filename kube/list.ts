// Lists everything, page by page.
import type { KubeClient, ListOptions } from './client.ts';
import { isGone } from './errors.ts';
import type { Resource } from './resources.ts';
import type { KubeList, KubeObject } from './types/meta.ts';

/** So many objects a page, as client-go asks for. */
export const listPageSize = 500;

/**
 * All objects that the options select, in one list. Where the server says that the continue token is too old, starts over once without
 * pages, as then the whole list comes from one snapshot. Rejects with an ApiError.
 */
export async function listAll<T extends KubeObject>(
  client: Pick<KubeClient, 'list'>,
  resource: Resource<T>,
  options: Omit<ListOptions, 'continue'> = {},
): Promise<KubeList<T>> {
  const items: T[] = [];
  let token: string | undefined;
  try {
    for (;;) {
      const page = await client.list(resource, {
        limit: listPageSize,
        ...options,
        ...(token === undefined ? {} : { continue: token }),
      });
      if (token === undefined && !page.metadata.continue) return page;
      for (const item of page.items) items.push(item);
      token = page.metadata.continue || undefined;
      if (token === undefined) return { ...page, items };
    }
  } catch (error) {
    if (!isGone(error) || token === undefined) throw error;
    const { limit: _, ...rest } = options;
    return await client.list(resource, rest);
  }
}
