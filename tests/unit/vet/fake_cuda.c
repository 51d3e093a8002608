/* The calls of the CUDA Driver API and of NVRTC that vetting makes, answered in the host's memory: what is passed is
   checked, what is asked is done. FAKE_CUDA_FLIP=N flips one bit of the product of the Nth launch. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t address;
static const char *source;
static int launches, context, module, function;

int cuInit(unsigned flags) { return flags; }
int cuDeviceGetCount(int *count) { return *count = 2, 0; }
int cuDeviceGet(int *device, int index) { return *device = index + 40, index < 0 || index > 1; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : -1;
    return device != 40 && device != 41;
}
int cuDevicePrimaryCtxRetain(void **made, int device) { return *made = &context, device != 40 && device != 41; }
int cuCtxSetCurrent(void *given) { return given != &context; }
int cuCtxSynchronize(void) { return 0; }
int cuMemAlloc_v2(address *made, size_t size) { return *made = (address)malloc(size), 0; }
int cuMemAllocHost_v2(void **made, size_t size) { return *made = malloc(size), 0; }
int cuMemFree_v2(address given) { return free((void *)given), 0; }
int cuMemcpyHtoD_v2(address to, const void *from, size_t size) { return memcpy((void *)to, from, size), 0; }
int cuMemcpyDtoH_v2(void *to, address from, size_t size) { return memcpy(to, (void *)from, size), 0; }
int cuMemcpyDtoD_v2(address to, address from, size_t size) { return memcpy((void *)to, (void *)from, size), 0; }
int cuModuleLoadData(void **made, const char *text) { return *made = &module, strcmp(text, "PTX compute_90"); }
int cuModuleGetFunction(void **made, void *given, const char *name) {
    return *made = &function, given != &module || strcmp(name, "multiply");
}

int cuLaunchKernel(void *given, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
    const float *left = *(const float **)parameters[0], *right = *(const float **)parameters[1];
    float *product = *(float **)parameters[2];
    const int size = *(int *)parameters[3], flip = atoi(getenv("FAKE_CUDA_FLIP") ? getenv("FAKE_CUDA_FLIP") : "0");
    if (given != &function || shared || stream || extra || gz != 1 || bz != 1 || bx != 16 || by != 16) return 1;
    if (gx != gy || gx * bx < (unsigned)size || (gx - 1) * bx >= (unsigned)size) return 1;
    for (int row = 0; row < size; row++)
        for (int column = 0; column < size; column++) {
            float sum = 0;
            for (int k = 0; k < size; k++) sum += left[row * size + k] * right[k * size + column];
            product[row * size + column] = sum;
        }
    if (++launches == flip) *(uint32_t *)(product + size) ^= 1;
    return 0;
}

int nvrtcCreateProgram(void **made, const char *text, const char *name, int headers, void *contents, void *names) {
    source = text;
    return *made = &source, headers || contents || names || !strstr(text, "__global__ void multiply") || !*name;
}
int nvrtcCompileProgram(void *given, int options, const char **option) {
    return given != &source || options != 1 || strcmp(*option, "--gpu-architecture=compute_90");
}
int nvrtcGetPTXSize(void *given, size_t *size) { return *size = sizeof "PTX compute_90", given != &source; }
int nvrtcGetPTX(void *given, char *text) { return strcpy(text, "PTX compute_90"), given != &source; }
int nvrtcDestroyProgram(void **given) { return *given != &source; }
