/* rtc_json_pkg.c: spare fragments in a worker's private memory, so that Kamailio finds free memory without a search.
 *
 * Kamailio's own memory manager (qm) has a list of free fragments for each size, and joins what is freed with its free neighbours.
 * All that a message took is freed after it, so it becomes one large fragment again, and for each header field of the next message
 * some two thousand empty lists are walked through to find that one. It was a quarter of the processor time of a call.
 * A fragment between two that are in use has nothing to be joined with: it stays in the list of its size.
 */
#include <string.h>

#include "core/dprint.h"
#include "core/mem/mem.h"

#include "rtc_json_mod.h"

/* how far behind a fragment the next one may begin: qm has 32 or 104 bytes between two, as it was built */
#define BEHIND 128
/* with less than this to begin with, nothing is laid out: some 0.4 MB are kept */
#define ROOM_WANTED (5UL << 19)

/* What is held while all is laid out. A wall is such a piece, too, and never freed. */
typedef struct piece
{
	struct piece *next;
} piece_t;

static piece_t *hold(piece_t **list, size_t size)
{
	piece_t *piece = pkg_malloc(size);

	if(piece != NULL && list != NULL) {
		piece->next = *list;
		*list = piece;
	}
	return piece;
}

static void release(piece_t *list)
{
	piece_t *next;

	for(; list != NULL; list = next) {
		next = list->next;
		pkg_free(list);
	}
}

void rtcj_pkg_spares(void)
{
	/* a size that has none left takes of the next, so the steps may grow with what they waste */
	static const struct
	{
		size_t from, to, step;
		int each;
	} kinds[] = {{1152, 4096, 128, 2}, {272, 1024, 16, 4}, {16, 256, 8, 8}};
	piece_t *spares = NULL, *holes = NULL, *spare, *wall;
	unsigned long floor = pkg_available() / 2;
	size_t kind, size;
	int n, laid = 0;

	/* the other managers look for nothing, or join nothing */
	if(_pkg_root.mname == NULL || strcmp(_pkg_root.mname, "q_malloc") != 0)
		return;
	if(floor < ROOM_WANTED / 2) {
		LM_INFO("little private memory (-M): no spare fragments\n");
		return;
	}
	/* the largest first: the walls, which take the smallest fragment there is, then close all holes before the many small spares */
	for(kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
		for(size = kinds[kind].to; size >= kinds[kind].from; size -= kinds[kind].step) {
			for(n = 0; n < kinds[kind].each; n++) {
				spare = hold(&spares, size);
				do {
					if(spare == NULL || pkg_available() < floor)
						goto done;
					wall = hold(NULL, sizeof(piece_t));
					if(wall == NULL)
						goto done;
					if((char *)wall > (char *)spare && (char *)wall < (char *)spare + size + BEHIND)
						break;
					wall->next = holes;
					holes = wall;
				} while(1);
				laid++;
			}
		}
	}
done:
	/* not before: the walls would take them */
	release(spares);
	release(holes);
	LM_DBG("%d spare fragments\n", laid);
}
