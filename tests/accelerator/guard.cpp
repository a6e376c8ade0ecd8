// What torch's C++ side asks of an accelerator: that it is there, which device and stream are current. One kind per
// process, that of the environment variable EMULATED ("cuda" or "mps"); the library has to be loaded before torch looks.

#include <cstdlib>
#include <cstring>

#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/MPSHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

template <c10::DeviceType kind>
struct Guard : c10::impl::NoOpDeviceGuardImpl<kind> {
  static c10::Stream only(c10::Device) {
    return c10::Stream(c10::Stream::DEFAULT, c10::Device(kind, 0));
  }
  c10::Device exchangeDevice(c10::Device) const override { return c10::Device(kind, 0); }
  c10::Device getDevice() const override { return c10::Device(kind, 0); }
  c10::Stream getStream(c10::Device device) const noexcept override { return only(device); }
  c10::Stream getNewStream(c10::Device device, int) const override { return only(device); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return only(stream.device()); }
  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {
    static int happened;
    *event = &happened;
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};

template <class Interface>
struct OneDevice : Interface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

struct CUDAHooks : OneDevice<at::CUDAHooksInterface> {
  bool hasCUDA() const override { return true; }
};

struct MPSHooks : OneDevice<at::MPSHooksInterface> {
  bool hasMPS() const override { return true; }
};

template <c10::DeviceType kind, class Hooks, class Registry>
void add(Registry* registry, const char* name) {
  c10::impl::registerDeviceGuard(kind, new Guard<kind>());
  registry->Register(name, [](auto&&...) { return std::make_unique<Hooks>(); });
}

[[maybe_unused]] const bool added = [] {
  const char* kind = std::getenv("EMULATED");
  if (kind != nullptr && std::strcmp(kind, "cuda") == 0) {
    add<c10::DeviceType::CUDA, CUDAHooks>(at::CUDAHooksRegistry(), "CUDAHooks");
  } else if (kind != nullptr && std::strcmp(kind, "mps") == 0) {
    add<c10::DeviceType::MPS, MPSHooks>(at::MPSHooksRegistry(), "MPSHooks");
  }
  return true;
}();

}  // namespace
