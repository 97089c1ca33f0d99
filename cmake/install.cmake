# What `cmake --install` puts where, and the CMake package `sluice` (find_package(sluice CONFIG),
# target sluice::runtime).
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/sluice)

install(TARGETS sluice RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
foreach(name formats kernels offload loaders runtime)
  set_target_properties(sluice_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(sluice_${name} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endforeach()
install(TARGETS sluice_formats sluice_kernels sluice_offload sluice_loaders sluice_runtime
  EXPORT sluice ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})

# Of formats/ only what the public headers include.
install(DIRECTORY runtime/include/sluice DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES formats/status.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/formats)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

install(EXPORT sluice NAMESPACE sluice:: FILE sluice-targets.cmake DESTINATION ${package_dir})
configure_package_config_file(cmake/sluice-config.cmake.in ${PROJECT_BINARY_DIR}/sluice-config.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/sluice-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/sluice-config.cmake ${PROJECT_BINARY_DIR}/sluice-config-version.cmake
  DESTINATION ${package_dir})

# Completion scripts and, where help2man is, manual pages: both come from the option declarations.
set(generated ${PROJECT_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${generated})
add_custom_command(OUTPUT ${generated}/sluice.bash ${generated}/_sluice ${generated}/sluice.fish
  COMMAND sluice completion bash > ${generated}/sluice.bash
  COMMAND sluice completion zsh > ${generated}/_sluice
  COMMAND sluice completion fish > ${generated}/sluice.fish
  DEPENDS sluice VERBATIM)
set(documents ${generated}/sluice.bash)
install(FILES ${generated}/sluice.bash RENAME sluice DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${generated}/_sluice DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${generated}/sluice.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)

find_program(HELP2MAN help2man)
if(HELP2MAN)
  set(pages ${generated}/sluice.1)
  add_custom_command(OUTPUT ${generated}/sluice.1
    COMMAND ${HELP2MAN} --no-info --version-string=${PROJECT_VERSION} --name "${PROJECT_DESCRIPTION}"
      --output=${generated}/sluice.1 $<TARGET_FILE:sluice>
    DEPENDS sluice VERBATIM)
  foreach(verb run chat convert inspect verify eval tokenize synth completion version)
    add_custom_command(OUTPUT ${generated}/sluice-${verb}.1
      COMMAND ${HELP2MAN} --no-info --version-string=${PROJECT_VERSION} --name "sluice ${verb}"
        --output=${generated}/sluice-${verb}.1 "$<TARGET_FILE:sluice> ${verb}"
      DEPENDS sluice VERBATIM)
    list(APPEND pages ${generated}/sluice-${verb}.1)
  endforeach()
  list(APPEND documents ${pages})
  install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()
if(SLUICE_SANITIZE)
  add_custom_target(documents DEPENDS ${documents})
else()
  add_custom_target(documents ALL DEPENDS ${documents})
endif()
