// A "CUDA" device for a CPU-only build of torch: host memory behind torch's CUDA dispatch key.
//
// What is registered here is what torch's CUDA library would register: a device guard, an allocator,
// the hooks by which torch finds CUDA, and operators. All operators but a few share one boxed
// fallback. It checks devices as CUDA's kernels would, gives the CPU operator aliases of the same
// memory, and wraps the results as CUDA tensors. So values are real, and a mistake about devices is
// an error, but nothing runs in parallel: streams, events and synchronisation do nothing.
//
// Only public headers of torch 2.13 are used, but not all of them are promised to stay: build.py
// refuses another version.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/TensorBody.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/copy.h>
#include <ATen/ops/copy_ops.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <set>
#include <string>

using at::Tensor;

namespace {

// ---- Devices ------------------------------------------------------------------------------------

thread_local c10::DeviceIndex current_index = 0;
constexpr c10::DeviceIndex device_count = 64;  // How many are shown, device.py says.

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device next) const override {
    auto before = current_index;
    current_index = next.index();
    return {c10::kCUDA, before};
  }
  c10::Device getDevice() const override { return {c10::kCUDA, current_index}; }
  void setDevice(c10::Device next) const override { current_index = next.index(); }
  void uncheckedSetDevice(c10::Device next) const noexcept override { current_index = next.index(); }
  c10::DeviceIndex deviceCount() const noexcept override { return device_count; }

  // One stream a device, on which everything is done at once.
  c10::Stream getStream(c10::Device d) const override {
    return c10::Stream(c10::Stream::DEFAULT, d);
  }
  c10::Stream getDefaultStream(c10::Device d) const override { return getStream(d); }
  c10::Stream getStreamFromGlobalPool(c10::Device d, bool) const override { return getStream(d); }
  c10::Stream getNewStream(c10::Device d, int) const override { return getStream(d); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}

  void record(void** event, const c10::Stream&, const c10::DeviceIndex,
              const c10::EventFlag) const override {
    *event = reinterpret_cast<void*>(1);
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard);

void free_host(void* pointer) { std::free(pointer); }

struct HostAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    constexpr size_t alignment = 64;
    void* pointer =
        bytes ? std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment)
              : nullptr;
    return {pointer, pointer, &free_host, c10::Device(c10::kCUDA, current_index)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_host; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};
HostAllocator allocator;
REGISTER_ALLOCATOR(c10::kCUDA, &allocator);

// ---- One memory, two devices --------------------------------------------------------------------

void drop_storage(void* context) { delete static_cast<c10::Storage*>(context); }

// A tensor on another device over the same memory, which it keeps alive.
Tensor alias(const Tensor& tensor, c10::Device device, c10::DispatchKey key) {
  const auto& storage = tensor.storage();
  auto* kept = new c10::Storage(storage);
  c10::DataPtr pointer(const_cast<void*>(storage.data()), kept, &drop_storage, device);
  c10::Allocator* own =
      key == c10::DispatchKey::CUDA ? static_cast<c10::Allocator*>(&allocator)
                                    : c10::GetAllocator(c10::kCPU);
  c10::Storage shared(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(pointer), own,
                      /*resizable=*/true);
  auto made = at::detail::make_tensor<c10::TensorImpl>(
      std::move(shared), c10::DispatchKeySet(key), tensor.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(),
                                                    tensor.storage_offset());
  return made;
}
Tensor host(const Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda()) return tensor;
  return alias(tensor, c10::Device(c10::kCPU), c10::DispatchKey::CPU);
}
Tensor device(const Tensor& tensor, c10::DeviceIndex index) {
  if (!tensor.defined() || !tensor.is_cpu()) return tensor;
  return alias(tensor, c10::Device(c10::kCUDA, index), c10::DispatchKey::CUDA);
}

// ---- The fallback -------------------------------------------------------------------------------

// Operators whose tensors may live on different devices.
bool mixes_devices(const std::string& name) {
  static const std::set<std::string> known = {
      "aten::copy_",           "aten::_copy_from",       "aten::_copy_from_and_resize",
      "aten::index",           "aten::index_put",        "aten::index_put_",
      "aten::_index_put_impl_", "aten::_unsafe_index",    "aten::_unsafe_index_put"};
  return known.count(name) > 0;
}

// Operators whose CUDA kernels do not even take a number in a CPU tensor.
bool refuses_cpu_numbers(const std::string& name) {
  for (auto* word : {"_fused_", "index_add", "index_select", "gather", "scatter", "::mm", "::bmm",
                     "::addmm", "::cat", "embedding", "rms_norm", "layer_norm", "softmax",
                     "nll_loss"})
    if (name.find(word) != std::string::npos) return true;
  return false;
}

// The tensors of one call: those on the device with their aliases, and the others.
class Arguments {
 public:
  explicit Arguments(const c10::FunctionSchema& schema) : schema_(schema) {}

  Tensor on_host(const Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    if (!tensor.is_cuda()) {
      strangers_.push_back(tensor);
      return tensor;
    }
    TORCH_CHECK(index_ < 0 || index_ == tensor.device().index(),
                "Expected all tensors to be on the same device, but found at least two devices "
                "(hostcuda) in ", schema_.name());
    index_ = tensor.device().index();
    for (auto& [there, here] : pairs_)
      if (there.unsafeGetTensorImpl() == tensor.unsafeGetTensorImpl()) return here;
    pairs_.emplace_back(tensor, host(tensor));
    return pairs_.back().second;
  }

  c10::IValue on_host(const c10::IValue& value) {
    if (value.isTensor()) return on_host(value.toTensor());
    if (value.isTensorList()) {
      std::vector<Tensor> list;
      for (const Tensor& each : value.toTensorVector()) list.push_back(on_host(each));
      return c10::List<Tensor>(list);
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const auto& each : value.toOptionalTensorList()) {
        std::optional<Tensor> tensor = each;
        list.push_back(tensor ? std::optional<Tensor>(on_host(*tensor)) : tensor);
      }
      return list;
    }
    if (value.isDevice() && value.toDevice().is_cuda()) {
      auto wanted = value.toDevice();
      if (index_ < 0) index_ = wanted.has_index() ? wanted.index() : current_index;
      return c10::Device(c10::kCPU);
    }
    if (value.isGenerator()) return c10::IValue();  // A CUDA generator is none for the CPU.
    return value;
  }

  void check_devices() const {
    if (pairs_.empty() || mixes_devices(schema_.name())) return;
    for (const auto& each : strangers_)
      TORCH_CHECK(each.dim() == 0 && !refuses_cpu_numbers(schema_.name()),
                  "Expected all tensors to be on the same device, but found at least two devices, "
                  "cuda:", static_cast<int>(index_), " and cpu! (hostcuda, in ", schema_.name(), ".",
                  schema_.overload_name(), ", CPU tensor of shape ", each.sizes(), ")");
  }

  // What the operator resized, or gave other memory, behind an alias.
  void follow_changes() {
    for (auto& [there, here] : pairs_) {
      if (here.storage().data() == there.storage().data() && here.sizes() == there.sizes() &&
          here.strides() == there.strides())
        continue;
      auto made = device(here, index());
      auto* changed = there.unsafeGetTensorImpl();
      changed->set_storage_keep_dtype(made.storage());
      changed->set_sizes_and_strides(made.sizes(), made.strides(), made.storage_offset());
    }
  }

  c10::IValue on_device(const c10::IValue& value) const {
    if (value.isTensor()) return on_device(value.toTensor());
    if (!value.isTensorList()) return value;
    std::vector<Tensor> list;
    for (const Tensor& each : value.toTensorVector()) list.push_back(on_device(each));
    return c10::List<Tensor>(list);
  }

 private:
  Tensor on_device(const Tensor& tensor) const {
    if (!tensor.defined()) return tensor;
    for (auto& [there, here] : pairs_)
      if (here.unsafeGetTensorImpl() == tensor.unsafeGetTensorImpl()) return there;
    return device(tensor, index());
  }
  c10::DeviceIndex index() const { return index_ < 0 ? current_index : index_; }

  const c10::FunctionSchema& schema_;
  std::vector<std::pair<Tensor, Tensor>> pairs_;  // (on the device, its alias)
  std::vector<Tensor> strangers_;
  c10::DeviceIndex index_ = -1;
};

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto count = schema.arguments().size();
  Arguments arguments(schema);
  std::vector<c10::IValue> on_host;
  for (const auto& value : torch::jit::last(*stack, count))
    on_host.push_back(arguments.on_host(value));
  arguments.check_devices();

  torch::jit::drop(*stack, count);
  for (auto& value : on_host) stack->push_back(std::move(value));
  op.callBoxed(stack);

  arguments.follow_changes();
  const auto returned = schema.returns().size();
  std::vector<c10::IValue> results;
  for (const auto& value : torch::jit::last(*stack, returned))
    results.push_back(arguments.on_device(value));
  torch::jit::drop(*stack, returned);
  for (auto& value : results) stack->push_back(std::move(value));
}

// ---- What the fallback cannot do: making memory, moving it, and looking at it otherwise -----------

Tensor empty(c10::SymIntArrayRef size, std::optional<c10::ScalarType> dtype,
             std::optional<c10::Layout>, std::optional<c10::Device> where, std::optional<bool>,
             std::optional<c10::MemoryFormat> format) {
  c10::DeviceGuard guard(where.value_or(c10::Device(c10::kCUDA, current_index)));
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &allocator,
                                   c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                   c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                     std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                     std::optional<c10::Device> where, std::optional<bool>) {
  c10::DeviceGuard guard(where.value_or(c10::Device(c10::kCUDA, current_index)));
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &allocator,
      c10::DispatchKeySet(c10::DispatchKey::CUDA), c10::dtype_or_default(dtype));
}

Tensor& copy_(Tensor& self, const Tensor& source, bool) {
  auto target = host(self);
  target.copy_(host(source));
  return self;
}

c10::Scalar local_scalar(const Tensor& tensor) { return at::_local_scalar_dense(host(tensor)); }

Tensor as_strided(const Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                  std::optional<c10::SymInt> offset) {
  std::optional<int64_t> start;
  if (offset) start = offset->guard_int(__FILE__, __LINE__);
  return at::native::as_strided_tensorimpl(self, C10_AS_INTARRAYREF_SLOW(size),
                                           C10_AS_INTARRAYREF_SLOW(stride), start);
}
Tensor view(const Tensor& self, c10::SymIntArrayRef size) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}
Tensor reshape_alias(const Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(size),
                                    C10_AS_INTARRAYREF_SLOW(stride));
}

std::vector<int64_t> contiguous_strides(c10::IntArrayRef sizes) {
  std::vector<int64_t> strides(sizes.size());
  int64_t step = 1;
  for (int i = static_cast<int>(sizes.size()) - 1; i >= 0; --i) {
    strides[i] = step;
    step *= std::max<int64_t>(sizes[i], 1);
  }
  return strides;
}

Tensor& place(Tensor& self, c10::Storage storage, c10::IntArrayRef sizes, c10::IntArrayRef strides,
              int64_t offset) {
  auto* changed = self.unsafeGetTensorImpl();
  changed->set_storage_keep_dtype(std::move(storage));
  changed->set_sizes_and_strides(sizes, strides, offset);
  return self;
}
Tensor& set_part_of_storage(Tensor& self, c10::Storage storage, c10::SymInt offset,
                            c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  auto sizes = C10_AS_INTARRAYREF_SLOW(size);
  auto strides = C10_AS_INTARRAYREF_SLOW(stride);
  auto usual = contiguous_strides(sizes);
  if (strides.empty() && !sizes.empty()) strides = usual;
  return place(self, std::move(storage), sizes, strides, offset.guard_int(__FILE__, __LINE__));
}
Tensor& set_storage(Tensor& self, c10::Storage storage) {
  std::vector<int64_t> sizes{static_cast<int64_t>(storage.nbytes() / self.dtype().itemsize())};
  std::vector<int64_t> strides{1};
  return place(self, std::move(storage), sizes, strides, 0);
}
Tensor& set_tensor(Tensor& self, const Tensor& source) {
  return place(self, source.storage(), source.sizes(), source.strides(), source.storage_offset());
}
const Tensor& resize_(const Tensor& self, c10::SymIntArrayRef size,
                      std::optional<c10::MemoryFormat> format) {
  return at::native::resize_(self, C10_AS_INTARRAYREF_SLOW(size), format);
}
void record_stream(Tensor&, c10::Stream) {}

TORCH_LIBRARY_IMPL(_, CUDA, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", TORCH_FN(empty));
  m.impl("empty_strided", TORCH_FN(empty_strided));
  m.impl("copy_", TORCH_FN(copy_));
  m.impl("_local_scalar_dense", TORCH_FN(local_scalar));
  m.impl("as_strided", TORCH_FN(as_strided));
  m.impl("view", TORCH_FN(view));
  m.impl("_reshape_alias", TORCH_FN(reshape_alias));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(set_part_of_storage));
  m.impl("set_.source_Storage", TORCH_FN(set_storage));
  m.impl("set_.source_Tensor", TORCH_FN(set_tensor));
  m.impl("resize_", TORCH_FN(resize_));
  m.impl("record_stream", TORCH_FN(record_stream));
}

// What the Python side (device.py) asks for.
TORCH_LIBRARY(hostcuda, m) {
  m.def("host(Tensor(a) t) -> Tensor(a)", [](const Tensor& tensor) { return host(tensor); });
  m.def("set_device(int i) -> ()",
        [](int64_t index) { current_index = static_cast<c10::DeviceIndex>(index); });
  m.def("current_device() -> int", []() { return static_cast<int64_t>(current_index); });
}

}  // namespace

// ---- How torch finds CUDA -------------------------------------------------------------------------

namespace at {

struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasCUDART() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return device_count; }
  int getNumGPUs() const override { return device_count; }
  DeviceIndex current_device() const override { return current_index; }
  DeviceIndex getCurrentDevice() const override { return current_index; }
  void setCurrentDevice(DeviceIndex next) const override { current_index = next; }
  DeviceIndex exchangeDevice(DeviceIndex next) const override {
    auto before = current_index;
    current_index = next;
    return before;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex next) const override { return exchangeDevice(next); }
  Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(c10::kCPU); }
  Allocator* getCUDADeviceAllocator() const override { return &allocator; }
  const Generator& getDefaultGenerator(DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
  Generator getNewGenerator(DeviceIndex) const override { return at::detail::createCPUGenerator(); }
  void deviceSynchronize(DeviceIndex) const override {}
};
REGISTER_CUDA_HOOKS(CUDAHooks);

}  // namespace at
