#pragma once
#include "CKernelMessage.h"
