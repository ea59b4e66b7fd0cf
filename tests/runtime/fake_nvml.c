/* A stand-in for NVIDIA's library: two GPUs, described by the environment.
 *
 *   FAKE_FREE_MIB   free memory of both GPUs, of 1000 MiB
 *   FAKE_PID        a process that holds 300 MiB of the first GPU
 *   FAKE_HELD       or instead of both a file, read at every question, of lines "GPU PID MIB":
 *                   what a process holds of a GPU; of process 0 nothing is told but that it is taken
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };
#define MIB (1024ull * 1024)

struct memory { unsigned version; unsigned long long total, reserved, free, used; };
struct process { unsigned pid; unsigned long long used; unsigned instance, compute; };

static int environment(const char *name) {
    const char *value = getenv(name);
    return value ? atoi(value) : 0;
}

/* What is held of a GPU, in MiB; and by whom, for as many as the list has room. */
static unsigned long long held(void *device, struct process *list, unsigned room, unsigned *found) {
    FILE *file = fopen(getenv("FAKE_HELD"), "r");
    unsigned gpu, pid, mib;
    unsigned long long sum = 0;
    *found = 0;
    while (file && fscanf(file, "%u %u %u", &gpu, &pid, &mib) == 3) {
        if (device != (void *)(unsigned long)(gpu + 1)) continue;
        sum += mib;
        if (pid && (*found)++ < room) list[*found - 1] = (struct process){pid, mib * MIB, 0, 0};
    }
    if (file) fclose(file);
    return sum;
}

int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(unsigned long)(index + 1);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    return NOT_SUPPORTED;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    strcpy(text, device == (void *)1 ? "GPU-aaaa" : "GPU-bbbb");
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    strcpy(text, "Fake 1000");
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory *memory) {
    memory->total = 1000 * MIB;
    memory->reserved = 10 * MIB;
    unsigned found;
    memory->free = environment("FAKE_FREE_MIB") * MIB;
    if (getenv("FAKE_HELD")) {
        memory->reserved = 0;
        memory->free = memory->total - held(device, NULL, 0, &found) * MIB;
    }
    memory->used = memory->total - memory->reserved - memory->free;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *list) {
    unsigned have = device == (void *)1 && environment("FAKE_PID") ? 1 : 0, room = *count;
    if (getenv("FAKE_HELD")) {
        held(device, list, room, count);
        return *count > room ? INSUFFICIENT_SIZE : SUCCESS;
    }
    *count = have;
    if (room < have) return INSUFFICIENT_SIZE;
    if (have) list[0] = (struct process){environment("FAKE_PID"), 300 * MIB, 0, 0};
    return SUCCESS;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, struct process *list) {
    return NOT_SUPPORTED;
}
