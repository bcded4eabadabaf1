// <features.h> and <sys/types.h> must come first, or fd_set is undefined when Swift's importer reads liburing.
#include <features.h>
#include <sys/types.h>
#include <liburing.h>
